// The rates of PyTorch's schedules, bit for bit, from data/lr_schedules.txt; however often a
// scheduler is saved and resumed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/client/lr_scheduler.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

SequentialLr Alone(LrSchedule schedule) { return {{std::move(schedule)}, {}}; }

const std::map<std::string, SequentialLr>& Schedules() {
  static const auto* const kSchedules = new std::map<std::string, SequentialLr>{
      {"step", Alone(StepLr{7})},
      {"step_gamma", Alone(StepLr{1, 0.97})},
      {"multi_step", Alone(MultiStepLr{{30, 5, 11, 11}})},
      {"multi_step_at_once", Alone(MultiStepLr{{0, 9}, 0.3})},
      {"constant", Alone(ConstantLr())},
      {"constant_long", Alone(ConstantLr{0.7, 13})},
      {"linear", Alone(LinearLr())},
      {"linear_down", Alone(LinearLr{1.0, 0.1, 17})},
      {"linear_to_zero", Alone(LinearLr{0.25, 0.0, 9})},
      {"exponential", Alone(ExponentialLr{0.9})},
      {"cosine", Alone(CosineAnnealingLr{11})},
      {"cosine_eta_min", Alone(CosineAnnealingLr{20, 1e-4})},
      {"cosine_one", Alone(CosineAnnealingLr{1})},
      {"warm_up_then_cosine", {{LinearLr{0.01, 1.0, 8}, CosineAnnealingLr{40, 1e-5}}, {8}}},
      {"constant_then_exponential", {{ConstantLr{0.1, 20}, ExponentialLr{0.9}}, {20}}},
      {"all",
       {{ExponentialLr{1.3}, StepLr{2, 0.5}, LinearLr{0.2, 0.9, 4}, MultiStepLr{{0, 2, 4}, 0.5},
         ConstantLr{0.6, 4}, CosineAnnealingLr{6, 1e-3}},
        {3, 9, 15, 30, 40}}},
      {"nothing_between", {{StepLr{2}, ExponentialLr{0.5}, ConstantLr{0.5, 0}}, {6, 6}}},
  };
  return *kSchedules;
}

// By name: the rates of two groups, epoch by epoch.
std::map<std::string, std::vector<std::vector<double>>> Golden() {
  std::map<std::string, std::vector<std::vector<double>>> golden;
  std::ifstream file(std::string(std::getenv("TEST_SRCDIR")) + "/" + std::getenv("TEST_WORKSPACE") +
                     "/tests/golden/data/lr_schedules.txt");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    std::string first;
    std::string second;
    while (words >> first >> second) {
      golden[name].push_back(
          {std::strtod(first.c_str(), nullptr), std::strtod(second.c_str(), nullptr)});
    }
  }
  return golden;
}

TEST(LrScheduleTest, HasPyTorchsBits) {
  const auto golden = Golden();
  ASSERT_EQ(golden.size(), Schedules().size());
  for (const auto& [name, epochs] : golden) {
    SCOPED_TRACE(name);
    ASSERT_EQ(Schedules().count(name), 1u);
    ASSERT_EQ(epochs.size(), 60u);
    std::vector<double> rates = {0.05, 0.003};
    ASSERT_OK_AND_ASSIGN(LrScheduler scheduler, LrScheduler::Create(Schedules().at(name), &rates));
    for (size_t epoch = 0; epoch < epochs.size(); ++epoch) {
      if (epoch > 0) {
        ASSERT_OK_AND_ASSIGN(scheduler,
                             LrScheduler::Resume(Schedules().at(name), scheduler.SaveState()));
        scheduler.Step(&rates);
      }
      EXPECT_EQ(scheduler.last_epoch(), static_cast<int64_t>(epoch));
      EXPECT_EQ(rates, epochs[epoch]) << "epoch " << epoch;
    }
  }
}

TEST(LrScheduleTest, ARateSetByHandIsScaledFromThenOn) {
  std::vector<double> rates = {0.5};
  ASSERT_OK_AND_ASSIGN(LrScheduler scheduler,
                       LrScheduler::Create(Alone(ExponentialLr{0.5}), &rates));
  rates[0] = 8;
  scheduler.Step(&rates);
  EXPECT_EQ(rates, std::vector<double>({4}));
  // A group that is added begins with its own.
  rates.push_back(16);
  scheduler.Step(&rates);
  EXPECT_EQ(rates, std::vector<double>({2, 8}));
}

TEST(LrScheduleTest, RefusesWhatCannotBeFollowed) {
  const auto expect = [](SequentialLr schedule, const std::string& words) {
    std::vector<double> rates = {0.5};
    EXPECT_THAT(LrScheduler::Create(std::move(schedule), &rates).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(words)));
    EXPECT_EQ(rates[0], 0.5);
  };
  expect(Alone(StepLr{0}), "step_size: 0, expected at least 1");
  expect(Alone(ExponentialLr{HUGE_VAL}), "gamma: inf, expected a finite number");
  expect(Alone(ConstantLr{1.5}), "Constant multiplicative factor expected to be between 0 and 1.");
  expect(Alone(LinearLr{0}),
         "Starting multiplicative factor expected to be greater than 0 and less or equal to 1.");
  expect(Alone(LinearLr{0.5, -1}), "Ending multiplicative factor expected to be between 0 and 1.");
  expect(Alone(CosineAnnealingLr{}), "t_max: 0, expected at least 1");
  expect({}, "SequentialLR expects at least one scheduler, but got no scheduler.");
  expect({{StepLr{1}, StepLr{2}}, {}},
         "got number of schedulers 2 and the number of milestones to be equal to 0");
  expect({{StepLr{1}, StepLr{2}, StepLr{3}}, {5, 4}}, "4, expected at least 5");
}

TEST(LrScheduleTest, ResumesNothingElse) {
  const SequentialLr schedule = Alone(StepLr{1});
  for (const char* state :
       {"", "[]", "{}", R"({"last_epoch":1,"epoch":2,"schedules":1,"base_lrs":[]})",
        R"({"last_epoch":1,"epoch":1,"schedules":1,"base_lrs":["x"]})"}) {
    EXPECT_THAT(LrScheduler::Resume(schedule, state).status(),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("not the state of a learning rate scheduler")))
        << state;
  }
  std::vector<double> rates = {1};
  ASSERT_OK_AND_ASSIGN(const LrScheduler scheduler, LrScheduler::Create(schedule, &rates));
  EXPECT_THAT(LrScheduler::Resume(SequentialLr{{StepLr{1}, StepLr{1}}, {3}}, scheduler.SaveState())
                  .status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 schedules")));
}

}  // namespace
}  // namespace shardstep
