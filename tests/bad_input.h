// The fixture of the tests of bad input: one server process with the optimizer "healthy", and
// tables of calls that must be refused. Behind each table the optimizer makes one more step, whose
// result is exact; behind all of them the server lives and has not grown.
#ifndef SHARDSTEP_TESTS_BAD_INPUT_H_
#define SHARDSTEP_TESTS_BAD_INPUT_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/process_memory.h"
#include "shardstep/tests/raw_trainer.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

struct BadCall {
  std::string name;
  std::function<absl::Status()> call;
  absl::StatusCode code;
  // A part of the message; empty: any.
  std::string words;
  v1::Reason reason = v1::REASON_UNSPECIFIED;
};

class BadInputTest : public testing::Test {
 protected:
  // All that every table together may cost.
  static constexpr int64_t kMayGrow = int64_t{64} << 20;
  static constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  static constexpr auto kNotFound = absl::StatusCode::kNotFound;
  static constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
  static constexpr auto kAborted = absl::StatusCode::kAborted;
  static constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

  static void SetUpTestSuite() {
    steps_ = 0;
    MiniFleetOptions options;
    options.servers = 1;
    fleet_ = MakeProcessFleet(options).release();
    ASSERT_OK(fleet_->Start());
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    const Floats zeros = Values();
    ASSERT_OK(client.CreateOptimizer("healthy", zeros.named(), SGDOptions(1.0), Synchronous(1), 0));
    trainer_ = new RawTrainer(*fleet_, "healthy", 0, "trainer");
    ASSERT_OK(trainer_->Open());
    ExpectHealthy();
    bytes_before_ = ResidentBytes(fleet_->pid(0));
  }
  static void TearDownTestSuite() {
    EXPECT_LT(ResidentBytes(fleet_->pid(0)) - bytes_before_, kMayGrow);
    EXPECT_GT(ResidentBytes(fleet_->pid(0)), 0) << fleet_->LogTail(0);
    delete trainer_;
    delete fleet_;
  }

  static Floats Values() {
    return std::move(Floats().Add("a", {7}, 0, Whole{0}).Add("b", {5}, 0, Whole{0}));
  }

  // Every call is refused as its row says, and then all is as before.
  static void ExpectRefused(const std::vector<BadCall>& calls) {
    for (const BadCall& bad : calls) {
      SCOPED_TRACE(bad.name);
      const absl::Status status = bad.call();
      EXPECT_THAT(status, StatusIs(bad.code, testing::HasSubstr(bad.words)));
      EXPECT_EQ(ReasonOf(status), bad.reason) << status;
    }
    ExpectHealthy();
  }

  // One more step, of -1 each.
  static void ExpectHealthy() {
    ++steps_;
    ASSERT_OK(trainer_->Push(steps_, {{"a", 1}, {"b", 1}}));
    ASSERT_OK_AND_ASSIGN(const v1::StepReply reply,
                         trainer_->Step(trainer_->MakeStep(steps_, steps_, steps_)));
    EXPECT_EQ(reply.committed().version(), steps_);
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    ASSERT_OK_AND_ASSIGN(OptimizerReader reader, client.OpenReader("healthy"));
    Floats values = Values();
    ASSERT_OK(reader.Pull(values.named()));
    EXPECT_THAT(values["a"], testing::Each(-static_cast<float>(steps_)));
    EXPECT_THAT(values["b"], testing::Each(-static_cast<float>(steps_)));
  }

  // The step that would come next, without pushes.
  static v1::StepRequest NextStep() { return trainer_->MakeStep(steps_ + 1, 1, 0); }
  // The push that would come next.
  static std::vector<v1::Frame> NextPush() {
    return trainer_->PushFrames(0, steps_ + 1, {{"a", 1}, {"b", 1}});
  }

  inline static MiniFleet* fleet_ = nullptr;
  inline static RawTrainer* trainer_ = nullptr;
  inline static uint64_t steps_ = 0;
  inline static int64_t bytes_before_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BAD_INPUT_H_
