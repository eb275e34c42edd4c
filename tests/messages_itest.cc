// The messages of the first hours with a fleet, word for word.

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

using ::testing::MatchesRegex;

class MessagesTest : public testing::Test {
 protected:
  void StartFleet(int servers) {
    MiniFleetOptions options;
    options.servers = servers;
    fleet_ = MakeProcessFleet(options);
    ASSERT_OK(fleet_->Start());
  }

  absl::StatusOr<ShardedOptimizer> Create(int trainers, int trainer_rank) {
    SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_->fleet_file()));
    return client.CreateOptimizer("digits", values_.named(), SGDOptions(1.0), Synchronous(trainers),
                                  trainer_rank);
  }

  std::unique_ptr<MiniFleet> fleet_;
  Floats values_ = std::move(Floats().Add("fc1.weight", {4, 2}, 0, Rows(2)).Add("fc1.bias", {4}));
};

TEST_F(MessagesTest, MisspeltParameter) {
  StartFleet(2);
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(1, 0));
  const char* const kMessage =
      R"(parameter "fc1.wieght": not in optimizer "digits"; did you mean "fc1.weight")";
  Floats misspelt;
  misspelt.Add("fc1.wieght", {4, 2});
  EXPECT_THAT(Push(optimizer, misspelt), StatusIs(absl::StatusCode::kNotFound, kMessage));
  EXPECT_THAT(optimizer.Pull(misspelt.named()), StatusIs(absl::StatusCode::kNotFound, kMessage));
}

TEST_F(MessagesTest, MissingFleetFile) {
  const std::string nowhere = testing::TempDir() + "/nowhere";
  std::filesystem::create_directories(nowhere);
  std::filesystem::current_path(nowhere);
  EXPECT_THAT(Client::Connect("fleet.json"),
              StatusIs(absl::StatusCode::kNotFound,
                       R"(fleet file "fleet.json": no such file; pass --fleet or set )"
                       R"(SHARDSTEP_FLEET (local: shardctl fleet up --servers 3 --dir D))"));
}

TEST_F(MessagesTest, RefusedConnection) {
  StartFleet(2);
  fleet_->Kill(1);
  ClientOptions impatient;
  impatient.connect_timeout = absl::Seconds(2);
  EXPECT_THAT(Client::Connect(fleet_->fleet_file(), impatient),
              StatusIs(absl::StatusCode::kUnavailable,
                       MatchesRegex(absl::StrCat("server 1 at ", fleet_->address(1),
                                                 ": connection refused, [2-9][0-9]* attempts in "
                                                 "[12]\\.[0-9] s"))));
}

TEST_F(MessagesTest, BarrierThatWaits) {
  StartFleet(2);
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer first, Create(2, 0));
  EXPECT_THAT(first.Step(WithTimeout(absl::Seconds(1))),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       MatchesRegex("step 1 of \"digits\": waited 1\\.[0-9] s for trainer rank 1 "
                                    "\\(never seen\\)")));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer second, Create(2, 1));
  for (int step = 1; step <= 16; ++step) {
    auto other = StepAsync(second);
    ASSERT_OK(first.Step());
    ASSERT_OK(other.get());
  }
  EXPECT_THAT(first.Step(WithTimeout(absl::Seconds(2))),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       MatchesRegex("step 17 of \"digits\": waited 2\\.[0-9] s for trainer rank 1 "
                                    "\\(last seen [0-9]+\\.[0-9] s ago\\)")));
  // It was only late.
  auto other = StepAsync(second);
  ASSERT_OK_AND_ASSIGN(const StepResult step, first.Step());
  EXPECT_EQ(step.version, 17u);
  ASSERT_OK(other.get());
}

TEST_F(MessagesTest, ServerThatLostItsShards) {
  StartFleet(2);
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(1, 0));
  for (int step = 0; step < 5; ++step) ASSERT_OK(optimizer.Step());
  ASSERT_OK(fleet_->Restart(1));
  EXPECT_THAT(optimizer.Step(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "optimizer \"digits\": server 1 restarted and lost its shards at version 5; "
                       "there is no checkpoint: shardctl delete digits --yes"));
}

}  // namespace
}  // namespace shardstep
