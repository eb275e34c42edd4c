#include "shardstep/tests/simulation/sim_trainer.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "shardstep/tests/simulation/tensor_frames.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr absl::Duration kLongestThought = absl::Milliseconds(30);
constexpr absl::Duration kRetryDelay = absl::Milliseconds(400);
// After so many calls without an answer some trainers ask what became of the step.
constexpr int kAskAfter = 2;

}  // namespace

SimTrainer::SimTrainer(Outside outside, int rank, int instance)
    : outside_(std::move(outside)),
      rank_(rank),
      instance_(absl::StrCat("trainer ", rank, " instance ", instance)),
      process_(absl::StrCat("t", rank, ".", instance)) {
  for (int server = 0; server < outside_.workload->servers; ++server) {
    lanes_.push_back(std::make_unique<SimPushLane>(SimPushLane::Outside{
        outside_.simulation, outside_.network, &process_,
        [this, server] { return outside_.find(server); }, [this] { OnPushed(); },
        [this](const absl::Status& status) { OnError(status); }}));
    sent_.add_sent_to()->set_server_rank(server);
  }
}

void SimTrainer::Die() {
  if (!process_.alive()) return;
  training_ = false;
  outside_.simulation->Kill(&process_);
  outside_.network->OnDeath(&process_);
  outside_.simulation->After(absl::ZeroDuration(), nullptr, "clear away", [this] {
    outside_.network->Forget(&process_);
    outside_.simulation->Forget(&process_);
  });
}

absl::Duration SimTrainer::CallTimeout() {
  return outside_.simulation->random().Between(absl::Milliseconds(500), absl::Seconds(4));
}

void SimTrainer::Later(std::function<void()> task) {
  outside_.simulation->After(
      outside_.simulation->random().Between(absl::ZeroDuration(), kRetryDelay), &process_, "later",
      std::move(task));
}

v1::CallHeader SimTrainer::Header() const {
  v1::CallHeader header;
  header.set_optimizer(Workload::kOptimizer);
  header.set_session(session_.session());
  return header;
}

void SimTrainer::OnError(const absl::Status& status) {
  switch (ReasonOf(status)) {
    case v1::FENCED:
      outside_.simulation->probes().Hit("trainer_fenced");
      return Die();
    case v1::ROLLED_BACK:
      return Follow(status);
    default:
      outside_.simulation->Fail("wrong",
                                absl::StrCat(process_.name(), " is told: ", status.ToString()));
  }
}

// ---- a step

void SimTrainer::BeginStep() {
  phase_ = Phase::kResting;
  resting_ = steps_ >= rests_at_;
  if (resting_) return;
  Random& random = outside_.simulation->random();
  outside_.simulation->After(random.Between(absl::ZeroDuration(), kLongestThought), &process_,
                             "step", [this] {
                               const int pushes = outside_.workload->Pushes(rank_, steps_ + 1);
                               phase_ = Phase::kPushing;
                               if (outside_.simulation->random().Chance(0.2)) PushNothing();
                               for (int push = 0; push < pushes; ++push) Push(push, pushes);
                             });
}

void SimTrainer::Push(int push, int pushes) {
  const Workload& workload = *outside_.workload;
  std::vector<std::vector<float>> gradients;
  std::string touched(1, '\0');
  for (const int parameter : {Workload::kLedger, Workload::kMomentum}) {
    gradients.push_back(workload.Gradient(parameter, rank_, steps_ + 1, push));
    touched[0] = static_cast<char>(touched[0] | (1 << parameter));
  }
  ++last_push_;
  sent_.set_touched(touched);
  const int pieces = 1 + static_cast<int>(outside_.simulation->random().Below(3));
  for (int server = 0; server < workload.servers; ++server) {
    TensorFrames frames = MakeTensorFrames(*layouts_[server], gradients, pieces);
    OutgoingPush outgoing = MakePush();
    outgoing.begin.set_last(push + 1 == pushes);
    outgoing.frames = std::move(frames.frames);
    outgoing.end = std::move(frames.end);
    outgoing.end.set_touched(touched);
    sent_.mutable_sent_to(server)->add_sequences(last_push_);
    lanes_[server]->Add(std::move(outgoing));
  }
}

void SimTrainer::PushNothing() {
  ++last_push_;
  for (int server = 0; server < outside_.workload->servers; ++server) {
    if (outside_.simulation->random().Chance(0.5)) {
      partial_ = true;
      continue;
    }
    OutgoingPush outgoing = MakePush();
    outgoing.end.set_digest(FrameDigest().value());
    sent_.mutable_sent_to(server)->add_sequences(last_push_);
    lanes_[server]->Add(std::move(outgoing));
  }
}

OutgoingPush SimTrainer::MakePush() const {
  OutgoingPush push;
  v1::CallHeader& header = *push.begin.mutable_header();
  header = Header();
  header.set_lineage(lineage_);
  header.set_plan_id(plan_id_);
  header.set_sequence(last_push_);
  header.set_first_live_push(first_live_push_);
  push.begin.set_weight(1);
  push.begin.set_computed_on(version_);
  return push;
}

// All pushes so far are over.
void SimTrainer::Forget() {
  first_live_push_ = last_push_ + 1;
  for (const auto& lane : lanes_) lane->Forget(first_live_push_);
  for (auto& sent : *sent_.mutable_sent_to()) sent.clear_sequences();
  partial_ = false;
}

void SimTrainer::OnPushed() {
  if (phase_ != Phase::kPushing) return;
  for (const auto& lane : lanes_) {
    if (!lane->AllAcknowledged()) return;
  }
  // The first call of the step, or one behind what was missing.
  if (request_.header().sequence() != next_call_) {
    request_ = v1::StepRequest();
    v1::CallHeader& header = *request_.mutable_header();
    header = Header();
    header.set_lineage(lineage_);
    header.set_plan_id(plan_id_);
    header.set_sequence(next_call_);
    header.set_first_live_call(next_call_);
    header.set_first_live_push(first_live_push_);
    request_.set_first_push(first_live_push_);
    request_.set_last_push(last_push_);
    request_.set_trainer_state(absl::StrCat(steps_ + 1));
    if (partial_) {
      outside_.simulation->probes().Hit("step_with_partial_pushes");
      *request_.mutable_partial() = sent_;
    }
    if (outside_.simulation->random().Chance(0.2)) request_.set_want_snapshot(v1::PARAMETERS);
    for (const uint64_t snapshot : std::exchange(snapshots_, {})) {
      request_.add_close_snapshots(snapshot);
    }
  }
  failed_calls_ = 0;
  CallStep();
}

void SimTrainer::CallStep() {
  phase_ = Phase::kCalling;
  outside_.ledger->Asked(rank_, lineage_, steps_ + 1);
  outside_.network->Call<v1::StepRequest, v1::StepReply>(
      &process_, outside_.find(0), Method::kStep, request_, CallTimeout(),
      [this](const auto& reply) { OnStep(reply); });
}

void SimTrainer::AskStatus() {
  outside_.simulation->probes().Hit("step_status_asked");
  v1::StepStatusRequest request;
  *request.mutable_header() = request_.header();
  outside_.network->Call<v1::StepStatusRequest, v1::StepStatusReply>(
      &process_, outside_.find(0), Method::kStepStatus, request, CallTimeout(),
      [this](const absl::StatusOr<v1::StepStatusReply>& reply) {
        if (reply.ok() && reply->state() == v1::StepStatusReply::COMMITTED) {
          outside_.simulation->probes().Hit("step_status_committed");
          return OnCommitted(reply->committed());
        }
        CallStep();
      });
}

void SimTrainer::OnStep(const absl::StatusOr<v1::StepReply>& reply) {
  if (reply.ok() && reply->has_committed()) return OnCommitted(reply->committed());
  if (reply.ok()) return CallStep();
  const absl::Status& status = reply.status();
  if (IsTransient(status)) {
    const bool ask = ++failed_calls_ > kAskAfter && outside_.simulation->random().Chance(0.5);
    return Later([this, ask] { ask ? AskStatus() : CallStep(); });
  }
  switch (ReasonOf(status)) {
    case v1::MISSING:
      outside_.simulation->probes().Hit("missing_pushed_again");
      return OnMissing(*ErrorDetailOf(status));
    case v1::PARTICIPANT_LOST:
      outside_.simulation->probes().Hit("participant_lost");
      return Later([this] { CallStep(); });
    case v1::ROLLED_BACK:
      // Lineages only rise: whoever says this was replaced and does not know it yet.
      if (ErrorDetailOf(status)->lineage() < lineage_) {
        outside_.simulation->probes().Hit("replaced_server_answered");
        return Later([this] { CallStep(); });
      }
      return OnError(status);
    default:
      return OnError(status);
  }
}

void SimTrainer::OnMissing(const v1::ErrorDetail& detail) {
  phase_ = Phase::kPushing;
  for (const v1::MissingPushes& missing : detail.missing()) {
    for (const v1::PushRange& range : missing.pushes()) {
      // Of another trainer: it pushes it again itself.
      if (range.session() != session_.session()) continue;
      lanes_[missing.server_rank()]->Repeat(range.first(), range.last());
    }
  }
  Later([this] { OnPushed(); });
}

void SimTrainer::OnCommitted(const v1::StepReply::Committed& committed) {
  outside_.ledger->Acknowledged(rank_, steps_ + 1, committed);
  if (committed.has_snapshot()) {
    // Some forget to close it: its lease ends.
    if (outside_.simulation->random().Chance(0.8)) {
      snapshots_.push_back(committed.snapshot().snapshot());
    }
  } else if (request_.want_snapshot() != v1::NO_SNAPSHOT) {
    outside_.simulation->probes().Hit("reply_without_snapshot");
  }
  ++steps_;
  ++acknowledged_;
  ++next_call_;
  version_ = committed.version();
  Forget();
  BeginStep();
}

void SimTrainer::Follow(const absl::Status& status) {
  // Told once, and not yet there.
  if (!training_) return;
  const v1::ErrorDetail detail = *ErrorDetailOf(status);
  outside_.simulation->probes().Hit("rolled_back");
  if (detail.lineage() <= lineage_) {
    return outside_.simulation->Fail("wrong",
                                     absl::StrCat(process_.name(), " of lineage ", lineage_,
                                                  " is rolled back: ", status.ToString()));
  }
  phase_ = Phase::kResting;
  training_ = false;
  Forget();
  request_ = v1::StepRequest();
  // Told by a server that does not know the trainers' states: the coordinator does.
  if (!detail.has_roll_back()) return OpenSession();
  session_.set_lineage(detail.roll_back().lineage());
  session_.set_trainer_state(detail.roll_back().trainer_state());
  session_.set_last_version(0);
  Describe(/*staging=*/0, [this](const auto& described) { OnDescribed(described); });
}

}  // namespace shardstep
