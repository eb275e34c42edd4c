// Calls that must be refused: steps, snapshots, reads, deadlines.

#include <chrono>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "shardstep/tests/bad_input.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/status.h"

namespace shardstep {
namespace {

using CoordinatorStub = v1::Coordinator::Stub;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class BadCallsTest : public BadInputTest {
 protected:
  static BadCall Step(std::string name, std::function<void(v1::StepRequest*)> change,
                      absl::StatusCode code, std::string words,
                      v1::Reason reason = v1::REASON_UNSPECIFIED) {
    return {std::move(name),
            [change = std::move(change)] {
              v1::StepRequest request = NextStep();
              change(&request);
              return trainer_->Step(request).status();
            },
            code, std::move(words), reason};
  }
};

TEST_F(BadCallsTest, Names) {
  v1::CallHeader wrong;
  wrong.set_optimizer("heathly");
  const std::string words = "optimizer \"heathly\": not on this fleet; did you mean \"healthy\"";
  const auto with = [wrong](auto request, auto method) {
    return [wrong, request, method]() mutable {
      *request.mutable_header() = wrong;
      return Call(trainer_->coordinator(), method, request).status();
    };
  };
  v1::ProposeRequest erase;
  erase.mutable_delete_();
  ExpectRefused({
      {"Step", with(v1::StepRequest(), &CoordinatorStub::Step), kNotFound, words, v1::NO_OPTIMIZER},
      {"Describe", with(v1::DescribeRequest(), &CoordinatorStub::Describe), kNotFound, words,
       v1::NO_OPTIMIZER},
      {"Delete", with(erase, &CoordinatorStub::Propose), kNotFound, words, v1::NO_OPTIMIZER},
      {"OpenSnapshot", with(v1::OpenSnapshotRequest(), &CoordinatorStub::OpenSnapshot), kNotFound,
       words, v1::NO_OPTIMIZER},
      {"ListSessions", with(v1::ListSessionsRequest(), &CoordinatorStub::ListSessions), kNotFound,
       words, v1::NO_OPTIMIZER},
  });
}

TEST_F(BadCallsTest, Steps) {
  const auto set = [](auto method, auto value) {
    return [=](v1::StepRequest* request) { (request->mutable_options()->*method)(value); };
  };
  const auto option = [](uint32_t group, double lr) {
    return [=](v1::StepRequest* request) {
      v1::OptionSetting* const setting = request->add_set_options();
      setting->set_group(group);
      setting->mutable_option()->set_name("lr");
      setting->mutable_option()->mutable_value()->set_double_value(lr);
    };
  };
  const auto pushes = [](uint64_t first, uint64_t last) {
    return [=](v1::StepRequest* request) {
      request->set_first_push(first);
      request->set_last_push(last);
    };
  };
  const auto sent = [](std::vector<int> servers, std::vector<uint64_t> sequences) {
    return [=](v1::StepRequest* request) {
      request->set_first_push(1);
      request->set_last_push(9);
      for (const int server : servers) {
        v1::PartialPushes::SentTo* const to = request->mutable_partial()->add_sent_to();
        to->set_server_rank(server);
        to->mutable_sequences()->Assign(sequences.begin(), sequences.end());
      }
    };
  };
  using Request = v1::StepRequest;
  using Options = v1::StepOptions;
  ExpectRefused({
      Step("pushes sent to no server", sent({-1}, {}), kInvalid, "sent to server -1"),
      Step("pushes sent to a server that there is not", sent({99}, {}), kInvalid,
           "sent to server 99"),
      Step("pushes sent to a server twice", sent({0, 0}, {}), kInvalid, "sent to server 0"),
      Step("a push sent that the step does not take", sent({0}, {10}), kInvalid, "push 10"),
      Step(
          "parameters that there are not",
          [](Request* r) { r->mutable_partial()->set_touched(std::string(9999, 1)); }, kInvalid,
          "by a bitmap of 9999 bytes"),
      Step("a push sent twice", sent({0}, {2, 2}), kInvalid, "push 2"),
      Step(
          "another lineage", [](Request* r) { r->mutable_header()->set_lineage(999); },
          kPrecondition, "lineage 999", v1::ROLLED_BACK),
      Step(
          "another plan", [](Request* r) { r->mutable_header()->set_plan_id("no plan"); },
          kPrecondition, "plan no plan", v1::PLAN_CHANGED),
      Step(
          "another incarnation", [](Request* r) { r->mutable_header()->set_incarnation(999); },
          kPrecondition, "incarnation 999", v1::INCARNATION),
      Step(
          "no session", [](Request* r) { r->mutable_header()->set_session(0); }, kPrecondition,
          "session 0", v1::FENCED),
      Step(
          "unknown session", [](Request* r) { r->mutable_header()->set_session(999); },
          kPrecondition, "session 999", v1::FENCED),
      Step(
          "no sequence", [](Request* r) { r->mutable_header()->set_sequence(0); }, kInvalid, ""),
      Step(
          "used sequence",
          [](Request* r) {
            r->mutable_header()->set_sequence(steps_);
            r->set_weight(2);
          },
          kInvalid, "with other contents", v1::SEQ_REUSE),
      Step("pushes from 0", pushes(0, 5), kInvalid, "pushes count from 1"),
      Step("too many pushes", pushes(1, 1'000'000), kInvalid, "expected at most"),
      Step("all pushes there can be", pushes(1, UINT64_MAX), kInvalid, "expected at most"),
      Step("the last push there can be", pushes(UINT64_MAX, UINT64_MAX), kInvalid,
           "pushes count below"),
      Step("pushes that never came", pushes(100, 101), kAborted, "lacks pushes 100 to 101",
           v1::MISSING),
      Step(
          "weight", [](Request* r) { r->set_weight(-1); }, kInvalid, "weight -1"),
      Step(
          "weight that is no number", [](Request* r) { r->set_weight(kNan); }, kInvalid, "weight"),
      Step("negative norm", set(&Options::set_clip_grad_norm, -1.0), kInvalid, "clip_grad_norm"),
      Step("norm that is no number", set(&Options::set_clip_grad_norm, kNan), kInvalid,
           "clip_grad_norm"),
      Step("infinite scale", set(&Options::set_grad_scale, kInfinity), kInvalid, "grad_scale"),
      Step("unknown policy", set(&Options::set_non_finite, static_cast<v1::NonFinitePolicy>(77)),
           kInvalid, "77"),
      Step(
          "unknown snapshot kind",
          [](Request* r) { r->set_want_snapshot(static_cast<v1::SnapshotKind>(77)); }, kInvalid,
          "77"),
      Step("option of no group", option(3, 0.1), kInvalid, "group 3"),
      Step("option that PyTorch refuses", option(0, -1), kInvalid, "Invalid learning rate: -1"),
      Step(
          "large trainer state",
          [](Request* r) { r->set_trainer_state(std::string((64 << 10) + 1, 'x')); }, kInvalid,
          "trainer state of 65537 bytes"),
  });
}

TEST_F(BadCallsTest, Snapshots) {
  v1::OpenSnapshotRequest open;
  *open.mutable_header() = trainer_->Header();
  open.set_kind(v1::PARAMETERS);
  ASSERT_OK_AND_ASSIGN(const v1::OpenSnapshotReply opened,
                       Call(trainer_->coordinator(), &CoordinatorStub::OpenSnapshot, open));
  const uint64_t snapshot = opened.snapshot().snapshot();
  const auto read = [snapshot](std::function<void(v1::ReadStateRequest*)> change) {
    return [=] {
      v1::ReadStateRequest request;
      *request.mutable_header() = trainer_->Header();
      request.set_snapshot(snapshot);
      request.mutable_selector()->set_parameters(true);
      change(&request);
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
      const auto reader = trainer_->shards(0).ReadState(&context);
      reader->Write(request);
      reader->WritesDone();
      v1::Frame frame;
      while (reader->Read(&frame)) {
      }
      return FromGrpcStatus(reader->Finish());
    };
  };
  const auto block = [](int64_t offset, int64_t size) {
    return [=](v1::ReadStateRequest* request) {
      v1::TensorSelector* const tensor = request->mutable_selector()->add_tensors();
      tensor->set_parameter("a");
      tensor->add_offsets(offset);
      tensor->add_sizes(size);
    };
  };
  ASSERT_OK(read([](v1::ReadStateRequest*) {})());
  using Request = v1::ReadStateRequest;
  ExpectRefused({
      {"unknown kind",
       [=]() mutable {
         open.set_kind(static_cast<v1::SnapshotKind>(77));
         return Call(trainer_->coordinator(), &CoordinatorStub::OpenSnapshot, open).status();
       },
       kInvalid, "77"},
      {"renewal of none",
       [] {
         v1::RenewSnapshotRequest request;
         *request.mutable_header() = trainer_->Header();
         request.set_snapshot(999);
         return Call(trainer_->coordinator(), &CoordinatorStub::RenewSnapshot, request).status();
       },
       kAborted, "snapshot 999", v1::SNAPSHOT_GONE},
      {"unknown snapshot", read([](Request* r) { r->set_snapshot(999); }), kAborted, "snapshot 999",
       v1::SNAPSHOT_GONE},
      {"another incarnation", read([](Request* r) { r->mutable_header()->set_incarnation(999); }),
       kPrecondition, "999", v1::INCARNATION},
      {"unknown parameter",
       read([](Request* r) { r->mutable_selector()->add_tensors()->set_parameter("c"); }),
       kNotFound, "parameter \"c\""},
      {"nothing", read([](Request* r) { r->clear_selector(); }), kInvalid, "selector"},
      {"state of a snapshot without it",
       read([](Request* r) { r->mutable_selector()->set_state(true); }), kPrecondition,
       "parameters alone"},
      {"block beyond the parameter", read(block(4, 4)), kInvalid, "does not fit"},
      {"negative block", read(block(-1, 2)), kInvalid, ""},
      {"overflowing block", read(block(INT64_MAX, INT64_MAX)), kInvalid, ""},
      {"more than there is", read([](Request* r) { r->set_skip_bytes(UINT64_MAX); }), kInvalid,
       "skip_bytes"},
      {"half an element", read([](Request* r) { r->set_skip_bytes(2); }), kInvalid, "skip_bytes"},
  });
}

// A stream that stays serves one read after the other, until one is refused.
TEST_F(BadCallsTest, ReadsOnOneStream) {
  v1::OpenSnapshotRequest open;
  *open.mutable_header() = trainer_->Header();
  open.set_kind(v1::PARAMETERS);
  ASSERT_OK_AND_ASSIGN(const v1::OpenSnapshotReply opened,
                       Call(trainer_->coordinator(), &CoordinatorStub::OpenSnapshot, open));
  v1::ReadStateRequest request;
  *request.mutable_header() = trainer_->Header();
  request.set_snapshot(opened.snapshot().snapshot());
  request.mutable_selector()->set_parameters(true);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  const auto stream = trainer_->shards(0).ReadState(&context);
  std::string first;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(stream->Write(request));
    std::string payload;
    v1::Frame frame;
    do {
      ASSERT_TRUE(stream->Read(&frame)) << i;
      payload += frame.payload();
    } while (!frame.header().has_read_end());
    if (i == 0) first = payload;
    EXPECT_FALSE(payload.empty());
    EXPECT_EQ(payload, first);
  }
  request.set_snapshot(999);
  ASSERT_TRUE(stream->Write(request));
  v1::Frame frame;
  EXPECT_FALSE(stream->Read(&frame));
  EXPECT_EQ(ReasonOf(FromGrpcStatus(stream->Finish())), v1::SNAPSHOT_GONE);
  ExpectHealthy();
}

TEST_F(BadCallsTest, Deadlines) {
  const auto step = [](std::function<void(grpc::ClientContext*)> set_deadline) {
    return [=] {
      grpc::ClientContext context;
      set_deadline(&context);
      v1::StepReply reply;
      return FromGrpcStatus(trainer_->coordinator().Step(&context, NextStep(), &reply));
    };
  };
  ExpectRefused({
      {"none", step([](grpc::ClientContext*) {}), kInvalid, "Step", v1::DEADLINE_REQUIRED},
      {"in an hour", step([](grpc::ClientContext* context) {
         context->set_deadline(std::chrono::system_clock::now() + std::chrono::hours(1));
       }),
       kInvalid, "Step", v1::DEADLINE_REQUIRED},
      {"none for Hello",
       [] {
         grpc::ClientContext context;
         v1::HelloReply reply;
         return FromGrpcStatus(trainer_->shards(0).Hello(&context, v1::HelloRequest(), &reply));
       },
       kInvalid, "Hello", v1::DEADLINE_REQUIRED},
  });
}

TEST_F(BadCallsTest, Changes) {
  using Request = v1::ProposeRequest;
  const auto propose = [](std::function<void(Request*)> change) {
    return [=] {
      Request request;
      *request.mutable_header() = trainer_->Header();
      change(&request);
      return Call(trainer_->coordinator(), &CoordinatorStub::Propose, request).status();
    };
  };
  const auto page = [](const std::string& bytes) { return PagedMessage(bytes).page(0).value(); };
  const auto load = [&](std::function<void(v1::LoadChange*)> change) {
    return propose([=](Request* request) {
      v1::LoadChange loaded;
      change(&loaded);
      v1::RenewSessionRequest renew;
      *renew.mutable_header() = trainer_->Header();
      const auto renewed = Call(trainer_->coordinator(), &CoordinatorStub::RenewSession, renew);
      request->mutable_header()->set_lineage(renewed->lineage());
      *request->mutable_load() = page(loaded.SerializeAsString());
    });
  };
  const auto restore = [&](const std::string& id) {
    return propose([=](Request* request) {
      request->mutable_header()->set_request_id("r" + id);
      request->mutable_restore()->set_checkpoint_id(id);
    });
  };
  const auto checkpoint = [](const std::string& id) {
    return [=] {
      v1::CheckpointRequest request;
      *request.mutable_header() = trainer_->Header();
      request.mutable_header()->set_request_id("c" + id);
      request.set_checkpoint_id(id);
      return Call(trainer_->coordinator(), &CoordinatorStub::Checkpoint, request).status();
    };
  };
  ExpectRefused({
      {"no change", propose([](Request*) {}), kInvalid, "no change"},
      {"group without pages", propose([](Request* r) { r->mutable_add_param_group(); }), kInvalid,
       "0 pages"},
      {"garbage group",
       propose([&](Request* r) { *r->mutable_add_param_group() = page("\xff\xff"); }), kInvalid,
       "does not parse"},
      {"group with a taken name", propose([&](Request* r) {
         v1::AddParamGroupChange group;
         group.add_parameters()->set_name("a");
         *r->mutable_add_param_group() = page(group.SerializeAsString());
       }),
       kInvalid, "some parameters appear in more than one parameter group"},
      {"group of an impossible size", propose([&](Request* r) {
         v1::AddParamGroupChange group;
         group.add_parameters()->set_name("huge");
         group.mutable_parameters(0)->set_dtype(v1::FLOAT32);
         group.mutable_parameters(0)->add_sizes(int64_t{1} << 62);
         *r->mutable_add_param_group() = page(group.SerializeAsString());
       }),
       kInvalid, "huge"},
      {"load that replaces nothing", propose([](Request* r) { r->mutable_load(); }), kInvalid,
       "names no lineage"},
      {"load of nothing known", load([](v1::LoadChange* l) {
         l->set_strict(true);
         l->add_tensors()->set_parameter("nowhere");
         l->mutable_tensors(0)->add_states("exp_avg");
       }),
       kInvalid, "All state keys must be params"},
      {"load of a parameter twice", load([](v1::LoadChange* l) {
         for (int i = 0; i < 2; ++i) l->add_tensors()->set_parameter("a");
       }),
       kInvalid, "stands twice"},
      {"restore without a request id", propose([](Request* r) { r->mutable_restore(); }), kInvalid,
       "no request id"},
      {"restore out of the root", restore("../../etc"), kInvalid, "../../etc"},
      {"restore of nothing", restore("nothing"), absl::StatusCode::kNotFound, "nothing"},
      {"checkpoint out of the root", checkpoint(".."), kInvalid, ".."},
      {"checkpoint of a name too long", checkpoint(std::string(129, 'x')), kInvalid, "128"},
  });
}

}  // namespace
}  // namespace shardstep
