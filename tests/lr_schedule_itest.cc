// A schedule on a fleet: its rates are recorded with the versions, its state travels in the trainer
// state, and a trainer that starts again goes on as if nothing had happened.

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/client/lr_scheduler.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

using ::testing::Each;

Floats MakeValues(float value = 0) {
  return std::move(Floats().Add("a", {7}, value, Rows(2)).Add("b", {5}, value, Whole{1}));
}

absl::StatusOr<ShardedOptimizer> Create(const std::string& fleet_file) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_file));
  const Floats values = MakeValues();
  return client.CreateOptimizer("m", values.named(), SGDOptions(0.5), Synchronous(1), 0);
}

// The rate that `optimizer`'s fleet has for the next step.
double Rate(const ShardedOptimizer& optimizer) {
  return optimizer.param_groups()[0].options.Number("lr");
}

TEST(LrScheduleTest, GoesOnWhereTheLastCommittedStepLeftIt) {
  MiniFleetOptions options;
  options.servers = 2;
  const std::unique_ptr<MiniFleet> fleet = MakeInProcessFleet(options);
  ASSERT_OK(fleet->Start());
  const ExponentialLr schedule{0.5};
  const Floats ones = MakeValues(1);
  double moved = 0;
  double rate = 0.5;
  for (int life = 0; life < 3; ++life) {
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(fleet->fleet_file()));
    absl::StatusOr<LrScheduler> scheduler =
        life == 0 ? LrScheduler::Create(schedule, &optimizer)
                  : LrScheduler::Resume(schedule, optimizer.trainer_state());
    ASSERT_OK(scheduler.status());
    // What came behind the last committed step is lost with the trainer that did it.
    if (life > 0) {
      ASSERT_OK(scheduler->Step(&optimizer));
    }
    for (int step = 0; step < 2; ++step) {
      ASSERT_OK(optimizer.set_trainer_state(scheduler->SaveState()));
      EXPECT_EQ(Rate(optimizer), rate);
      ASSERT_OK(PushAndStep(optimizer, ones).status());
      moved += rate;
      rate *= 0.5;
      ASSERT_OK(scheduler->Step(&optimizer));
    }
    EXPECT_EQ(scheduler->last_epoch(), 2 * (life + 1));
    Floats values = MakeValues();
    ASSERT_OK(optimizer.Pull(values.named()).status());
    EXPECT_THAT(values["a"], Each(static_cast<float>(-moved)));
    EXPECT_THAT(values["b"], Each(static_cast<float>(-moved)));
  }
}

}  // namespace
}  // namespace shardstep
