// How a simulated trainer begins: session, create or attach, description.

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "shardstep/tests/simulation/sim_trainer.h"
#include "shardstep/tests/simulation/tensor_frames.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

void SimTrainer::Start() {
  outside_.simulation->Start(&process_);
  OpenSession();
}

void SimTrainer::OpenSession() {
  v1::OpenSessionRequest request;
  request.mutable_header()->set_optimizer(Workload::kOptimizer);
  request.set_trainer_rank(rank_);
  request.set_instance(instance_);
  Call<v1::OpenSessionRequest, v1::OpenSessionReply>(
      Method::kOpenSession, request, [this](const auto& reply) { OnOpened(reply); },
      [this](const auto& status) { OnError(status); });
}

void SimTrainer::OnOpened(const v1::OpenSessionReply& reply) {
  const bool first = session_.session() == 0;
  // Another one came in between, and made this one a new one.
  if (!first && session_.session() != reply.session()) {
    outside_.simulation->probes().Hit("trainer_fenced");
    return Die();
  }
  session_ = reply;
  if (first) Renew();
  Propose(/*staged=*/0);
}

void SimTrainer::Renew() {
  v1::RenewSessionRequest request;
  *request.mutable_header() = Header();
  outside_.network->Call<v1::RenewSessionRequest, v1::RenewSessionReply>(
      &process_, outside_.find(0), Method::kRenewSession, request, outside_.lease / 3,
      [](const auto&) {});
  outside_.simulation->After(outside_.lease / 3, &process_, "renew", [this] { Renew(); });
}

void SimTrainer::Propose(uint64_t staged) {
  v1::ProposeRequest request;
  *request.mutable_header() = Header();
  request.set_staged(staged);
  const PagedMessage pages(DefinitionToProto(outside_.workload->Definition()).SerializeAsString());
  *request.mutable_create() = pages.page(0).value();
  Call<v1::ProposeRequest, v1::ProposeReply>(
      Method::kPropose, request, [this](const auto& reply) { OnProposed(reply); },
      [this](const auto& status) {
        if (!absl::IsInternal(status)) return OnError(status);
        // A disk did not take the values; the next time it may.
        outside_.simulation->probes().Hit("create_refused");
        Later([this] { Propose(/*staged=*/0); });
      });
}

void SimTrainer::OnProposed(const v1::ProposeReply& reply) {
  if (reply.has_done()) {
    return Describe(/*staging=*/0, [this](const auto& described) { OnDescribed(described); });
  }
  if (reply.has_staging()) return Stage(reply.staging());
  Later([this] { Propose(/*staged=*/0); });
}

void SimTrainer::Stage(const v1::ProposeReply::Staging& staging) {
  Describe(staging.staging(), [this, staging](const v1::DescribeReply& described) {
    v1::Description description;
    description.ParseFromString(described.description().data());
    layouts_.clear();
    for (int server = 0; server < outside_.workload->servers; ++server) {
      layouts_.push_back(Layout::Make(description, server).value());
    }
    Write(staging, /*server=*/0);
  });
}

void SimTrainer::Write(const v1::ProposeReply::Staging& staging, int server) {
  if (server == outside_.workload->servers) return Propose(staging.staging());
  v1::FrameHeader begin;
  *begin.mutable_write_begin()->mutable_header() = Header();
  begin.mutable_write_begin()->mutable_header()->set_plan_id(staging.plan_id());
  begin.mutable_write_begin()->set_staging(staging.staging());
  const auto stream = std::make_shared<std::shared_ptr<SimStream>>();
  const auto again = [this, staging, server] {
    Later([this, staging, server] { Write(staging, server); });
  };
  *stream = outside_.network->Open(
      &process_, outside_.find(server), StreamKind::kWrite,
      {[this, staging, server, stream, again](const std::string& bytes) {
         const auto done = std::exchange(*stream, nullptr);
         v1::RichStatus rich;
         if (done == nullptr || !rich.ParseFromString(bytes)) return;
         done->Break();
         const absl::Status status = FromRichStatus(rich);
         if (status.ok()) return Write(staging, server + 1);
         if (IsTransient(status)) return again();
         // The staging is over: whoever proposes again is told what holds now.
         const bool over = absl::IsNotFound(status) || absl::IsAborted(status) ||
                           ReasonOf(status) == v1::PLAN_CHANGED;
         if (!over) return OnError(status);
         Later([this] { Propose(/*staged=*/0); });
       },
       [stream, again](const absl::Status&) {
         if (std::exchange(*stream, nullptr) != nullptr) again();
       }});
  std::vector<std::vector<float>> zeros;
  for (const int parameter : {Workload::kLedger, Workload::kMomentum}) {
    zeros.emplace_back(outside_.workload->elements(parameter));
  }
  const TensorFrames values = MakeTensorFrames(*layouts_[server], zeros, /*pieces=*/1);
  const std::shared_ptr<SimStream> to = *stream;
  to->Send(SimStream::kCaller, EncodeFramePrefix(begin, {}).bytes);
  for (const std::string& frame : values.frames) to->Send(SimStream::kCaller, frame);
  v1::FrameHeader last;
  *last.mutable_end() = values.end;
  to->Send(SimStream::kCaller, EncodeFramePrefix(last, {}).bytes);
}

void SimTrainer::Describe(uint64_t staging, std::function<void(const v1::DescribeReply&)> done) {
  v1::DescribeRequest request;
  *request.mutable_header() = Header();
  request.set_staging(staging);
  Call<v1::DescribeRequest, v1::DescribeReply>(
      Method::kDescribe, request, std::move(done), [this, staging](const absl::Status& status) {
        // The staging is over.
        if (staging != 0 && (absl::IsAborted(status) || absl::IsNotFound(status))) {
          return Later([this] { Propose(/*staged=*/0); });
        }
        OnError(status);
      });
}

void SimTrainer::OnDescribed(const v1::DescribeReply& reply) {
  if (reply.lineage() != session_.lineage()) {
    // What the session was told is of another history.
    return OpenSession();
  }
  v1::Description description;
  description.ParseFromString(reply.description().data());
  layouts_.clear();
  for (int server = 0; server < outside_.workload->servers; ++server) {
    layouts_.push_back(Layout::Make(description, server).value());
  }
  plan_id_ = description.plan().plan_id();
  lineage_ = reply.lineage();
  version_ = reply.version();
  uint64_t steps = 0;
  static_cast<void>(absl::SimpleAtoi(session_.trainer_state(), &steps));
  outside_.ledger->Resumed(rank_, session_.session(), lineage_, steps, session_.last_version());
  steps_ = steps;
  training_ = true;
  BeginStep();
}

}  // namespace shardstep
