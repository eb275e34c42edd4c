// Every subject of the comparison moves tensors and compares their values, for a moment each.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/time/time.h"
#include "shardstep/tests/bench/subjects.h"
#include "shardstep/tests/bench/training.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

class SubjectsTest : public testing::TestWithParam<std::string> {};

TEST_P(SubjectsTest, MovesTheRightValues) {
  SubjectRun run;
  run.subject = GetParam();
  run.workload.tensors = 5;
  run.warm_up = run.duration = absl::Milliseconds(30);
  // Below and above what a frame, and a chunk of raw TCP, holds.
  for (const int64_t bytes : {12 << 10, 600 << 10}) {
    run.workload.bytes = bytes;
    EXPECT_OK(PrintSubject(run)) << bytes;
  }
}

INSTANTIATE_TEST_SUITE_P(All, SubjectsTest,
                         testing::Values("shardstep", "raw TCP", "raw TCP SGD", "textbook sync",
                                         "textbook sync SGD", "textbook callback",
                                         "textbook callback SGD"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == ' ' ? '_' : c;
                           return name;
                         });

TEST(TrainingTest, StepsAndComparesValues) {
  for (const bool synchronous : {true, false}) {
    TrainingOptions options;
    options.servers = options.trainers = 2;
    options.parameters = 7;
    options.bytes = 4096;
    options.synchronous = synchronous;
    options.pull = synchronous;
    options.warm_up = options.duration = absl::Milliseconds(30);
    ASSERT_OK_AND_ASSIGN(const TrainingResult result, RunTraining(options));
    EXPECT_GT(result.steps_per_second, 0);
    EXPECT_GE(result.rounds.size(), 6);
    EXPECT_EQ(result.peaks.size(), 2);
  }
}

}  // namespace
}  // namespace shardstep
