// Durability "checkpoint" after the death of a server: all go back to the last checkpoint by
// themselves, under a new lineage, and whoever worked on the old one is told where to go on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

class ReturnTest : public ::testing::Test {
 protected:
  ReturnTest() : fleet_(3, Directory(), Options()) {}

  static std::string Directory() {
    return absl::StrCat(std::getenv("TEST_TMPDIR"), "/",
                        ::testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  static NodeOptions Options() {
    NodeOptions options = TestFleet::DefaultOptions();
    options.durability = Durability::kCheckpoint;
    options.checkpoint_interval = absl::Seconds(10);
    return options;
  }

  void Create() {
    session_ = fleet_.OpenSession(0, "trainer");
    OptionMap options;
    options.Set("lr", 1.0);
    ASSERT_OK(
        fleet_.Create(TestFleet::Definition({{"a", 9}}, options, Synchronous{1}, 3), session_));
  }
  std::unique_ptr<Answer<v1::StepReply>> Step(uint64_t call, uint64_t lineage,
                                              const std::string& state) {
    v1::StepRequest more;
    more.mutable_header()->set_lineage(lineage);
    more.mutable_header()->set_first_live_call(call);
    more.set_trainer_state(state);
    return fleet_.Step(session_, call, call, call, more);
  }
  // Pushes and steps; the lineage that the reply is of.
  uint64_t Train(uint64_t call, uint64_t lineage) {
    EXPECT_OK(fleet_.Push(session_, call, {{"a", -1}}));
    const auto step = Step(call, lineage, absl::StrCat("cursor ", call));
    EXPECT_OK(step->status());
    return step->status().ok() ? (*step)->committed().lineage() : 0;
  }
  void ExpectAll(float value, uint64_t version) {
    uint64_t read = 0;
    ASSERT_OK_AND_ASSIGN(const Values values, fleet_.ReadNow(&read));
    EXPECT_EQ(read, version);
    EXPECT_THAT(values.at("a"), Each(value));
  }

  TestFleet fleet_;
  uint64_t session_ = 0;
};

TEST_F(ReturnTest, AllServersReturnAndTheTrainerIsToldWhereToGoOn) {
  Create();
  uint64_t lineage = Train(1, 0);
  Train(2, lineage);
  fleet_.Advance(absl::Seconds(11));  // a checkpoint of version 2
  lineage = Train(3, lineage);
  for (const int server : {1, 2, 0, 1}) {
    SCOPED_TRACE(absl::StrCat("server ", server));
    ASSERT_OK(fleet_.Push(session_, 4, {{"a", -1}}));
    fleet_.Restart(server);
    fleet_.Advance(absl::Seconds(3));
    ExpectAll(2, 2);
    const auto told = Step(4, lineage, "");
    ASSERT_EQ(ReasonOf(told->status()), v1::ROLLED_BACK);
    const v1::RollBack roll_back = ErrorDetailOf(told->status())->roll_back();
    EXPECT_EQ(roll_back.cause(), v1::RollBack::FAILURE);
    EXPECT_EQ(roll_back.version(), 2u);
    EXPECT_GT(roll_back.lineage(), lineage);
    EXPECT_EQ(roll_back.trainer_state(), "cursor 2");
    // The same session goes on under its own numbers.
    lineage = Train(4, roll_back.lineage());
    EXPECT_EQ(lineage, roll_back.lineage());
    ExpectAll(3, 3);
    session_ = fleet_.OpenSession(0, absl::StrCat("trainer ", server));
    lineage = roll_back.lineage();
  }
}

TEST_F(ReturnTest, CallsMeanwhileAreToldToComeAgain) {
  Create();
  Train(1, 0);
  fleet_.Advance(absl::Seconds(11));
  ASSERT_OK(fleet_.Push(session_, 2, {{"a", -1}}));
  fleet_.Cut(2);
  const auto waiting = Step(2, 0, "");
  EXPECT_FALSE(waiting->there());
  fleet_.Restart(1);
  // Server 2 is still away, so nothing can be read back.
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(waiting->status().message()), HasSubstr("return to the last checkpoint"));
  EXPECT_EQ(Step(2, 0, "")->status().code(), absl::StatusCode::kUnavailable);
  fleet_.Heal(2);
  fleet_.Advance(absl::Seconds(3));
  ExpectAll(1, 1);
}

TEST_F(ReturnTest, WithoutItsCheckpointThereIsNoWayBackAndItIsSaidTheSecondTime) {
  Create();
  Train(1, 0);
  std::filesystem::remove_all(Directory() + "/checkpoints/m");
  fleet_.Restart(1);
  EXPECT_EQ(fleet_.ReadNow().status().code(), absl::StatusCode::kUnavailable);
  fleet_.Advance(absl::Seconds(3));
  const absl::Status lost = fleet_.ReadNow().status();
  EXPECT_EQ(ReasonOf(lost), v1::SHARDS_LOST);
  EXPECT_THAT(std::string(lost.message()), HasSubstr("shardctl restore m"));
}

TEST_F(ReturnTest, WhatWasCreatedReturnsToTheCheckpointThatAcknowledgedIt) {
  Create();
  fleet_.Restart(1);
  fleet_.Advance(absl::Seconds(3));
  // The create was acknowledged by a checkpoint.
  ExpectAll(0, 0);
}

}  // namespace
}  // namespace shardstep
