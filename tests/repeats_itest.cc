// What is done twice has one effect: steps whose reply was lost, repeated pushes, replaced
// trainers. On real servers, by the generated stubs.

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/raw_trainer.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"
#include "shardstep/wire/rich_status.h"
#include "shardstep/wire/status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

class RepeatsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    fleet_ = MakeProcessFleet().release();
    ASSERT_OK(fleet_->Start());
  }
  static void TearDownTestSuite() { delete fleet_; }

  // Makes the test's optimizer through the SDK, which then lets its session go.
  void SetUp() override {
    name_ = testing::UnitTest::GetInstance()->current_test_info()->name();
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    client_ = std::make_unique<Client>(std::move(client));
    values_.Add("a", {7}, 0, Rows(3)).Add("b", {5}, 0, Whole{1});
    ASSERT_OK(client_->CreateOptimizer(name_, values_.named(), SGDOptions(1.0), Synchronous(2), 0));
  }

  RawTrainer Trainer(int trainer_rank, const std::string& instance) const {
    return RawTrainer(*fleet_, name_, trainer_rank, instance);
  }

  void ExpectValues(float a, float b) {
    ASSERT_OK_AND_ASSIGN(OptimizerReader reader, client_->OpenReader(name_));
    ASSERT_OK(reader.Pull(values_.named()));
    EXPECT_THAT(values_["a"], Each(a));
    EXPECT_THAT(values_["b"], Each(b));
  }

  // On a thread of its own.
  static std::future<absl::StatusOr<v1::StepReply>> CallStep(RawTrainer& trainer,
                                                             v1::StepRequest request) {
    return std::async(std::launch::async, [&trainer, request] { return trainer.Step(request); });
  }

  bool InStep(int trainer_rank) {
    const auto sessions = client_->ListSessions(name_);
    return sessions.ok() && static_cast<int>(sessions->size()) > trainer_rank &&
           (*sessions)[trainer_rank].in_step;
  }

  static MiniFleet* fleet_;
  std::string name_;
  std::unique_ptr<Client> client_;
  Floats values_;
};

MiniFleet* RepeatsTest::fleet_ = nullptr;

TEST_F(RepeatsTest, StepWhoseReplyIsLostCommitsOnce) {
  RawTrainer first = Trainer(0, "first"), second = Trainer(1, "second");
  ASSERT_OK(first.Open());
  ASSERT_OK(second.Open());
  ASSERT_OK(first.Push(1, {{"a", 1}, {"b", 1}}));
  ASSERT_OK(second.Push(1, {{"a", 3}, {"b", 1}}));
  // The call reaches the server and ends before its reply.
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  auto lost = std::async(std::launch::async, [&] {
    v1::StepReply reply;
    return FromGrpcStatus(first.coordinator().Step(&context, first.MakeStep(1, 1, 1), &reply));
  });
  EXPECT_TRUE(Eventually([&] { return InStep(0); }));
  context.TryCancel();
  EXPECT_THAT(lost.get(), StatusIs(absl::StatusCode::kCancelled));
  ASSERT_OK_AND_ASSIGN(const v1::StepReply committed, second.Step(second.MakeStep(1, 1, 1)));
  EXPECT_EQ(committed.committed().version(), 1u);
  for (int repeat = 0; repeat < 3; ++repeat) {
    ASSERT_OK_AND_ASSIGN(const v1::StepReply again, first.Step(first.MakeStep(1, 1, 1)));
    EXPECT_EQ(again.committed().version(), 1u);
    EXPECT_EQ(again.committed().grad_norm(), committed.committed().grad_norm());
    EXPECT_FALSE(again.committed().has_snapshot());
  }
  ExpectValues(-2, -1);
  v1::StepRequest other = first.MakeStep(1, 1, 1);
  other.mutable_options()->set_clip_grad_norm(1);
  const absl::Status reused = first.Step(other).status();
  EXPECT_EQ(reused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(reused), v1::SEQ_REUSE);
  ExpectValues(-2, -1);
}

TEST_F(RepeatsTest, StepCalledTwiceAtOnceCommitsOnce) {
  RawTrainer first = Trainer(0, "first"), second = Trainer(1, "second");
  ASSERT_OK(first.Open());
  ASSERT_OK(second.Open());
  ASSERT_OK(first.Push(1, {{"a", 1}}));
  const v1::StepRequest request = first.MakeStep(1, 1, 1);
  auto superseded = CallStep(first, request);
  EXPECT_TRUE(Eventually([&] { return InStep(0); }));
  auto repeated = CallStep(first, request);
  EXPECT_THAT(superseded.get(), StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_OK(second.Step(second.MakeStep(1, 1, 0)));
  ASSERT_OK_AND_ASSIGN(const v1::StepReply reply, repeated.get());
  EXPECT_EQ(reply.committed().version(), 1u);
  ExpectValues(-0.5, 0);
}

TEST_F(RepeatsTest, RepeatedPushAnswersOkAndAddsNothing) {
  RawTrainer first = Trainer(0, "first"), second = Trainer(1, "second");
  ASSERT_OK(first.Open());
  ASSERT_OK(second.Open());
  for (int repeat = 0; repeat < 3; ++repeat) ASSERT_OK(first.Push(1, {{"a", 2}}));
  EXPECT_EQ(ReasonOf(first.Push(1, {{"a", 3}})), v1::SEQ_REUSE);
  auto other = CallStep(second, second.MakeStep(1, 1, 0));
  ASSERT_OK(first.Step(first.MakeStep(1, 1, 1)));
  ASSERT_OK(other.get());
  ExpectValues(-1, 0);
  // Once a step has consumed it, too.
  ASSERT_OK(first.Push(1, {{"a", 2}}));
  other = CallStep(second, second.MakeStep(2, 1, 0));
  ASSERT_OK(first.Step(first.MakeStep(2, 2, 1)));
  ASSERT_OK(other.get());
  ExpectValues(-1, 0);
}

TEST_F(RepeatsTest, AnotherInstanceOfATrainerRankFencesTheFirst) {
  RawTrainer first = Trainer(0, "first"), second = Trainer(1, "second");
  ASSERT_OK(first.Open());
  ASSERT_OK(second.Open());
  const uint64_t session = first.session();
  ASSERT_OK(first.Open());
  EXPECT_EQ(first.session(), session);  // the same instance
  ASSERT_OK(first.Push(1, {{"a", 100}}));
  auto waiting = CallStep(first, first.MakeStep(1, 1, 1));
  EXPECT_TRUE(Eventually([&] { return InStep(0); }));

  RawTrainer replacement = Trainer(0, "replacement");
  ASSERT_OK(replacement.Open());
  EXPECT_EQ(ReasonOf(waiting.get().status()), v1::FENCED);
  EXPECT_GT(replacement.session(), session);
  const absl::Status fenced = first.Push(2, {{"a", 100}});
  EXPECT_EQ(fenced.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(fenced), v1::FENCED);
  EXPECT_EQ(ReasonOf(first.Step(first.MakeStep(1, 1, 1)).status()), v1::FENCED);

  ASSERT_OK(replacement.Push(1, {{"a", 2}}));
  auto other = CallStep(second, second.MakeStep(1, 1, 0));
  ASSERT_OK(replacement.Step(replacement.MakeStep(1, 1, 1)));
  ASSERT_OK(other.get());
  ExpectValues(-1, 0);  // nothing of the first instance's
}

}  // namespace
}  // namespace shardstep
