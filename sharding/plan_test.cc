#include "shardstep/sharding/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/shard_metadata.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;

ParameterShape Float32(std::string name, Shape sizes, std::optional<ShardingSpec> spec = {}) {
  return {std::move(name), DType::kFloat32, std::move(sizes), std::move(spec)};
}

// "parameter@server rank[offsets;sizes]" of each shard.
std::vector<std::string> Summary(const Plan& plan) {
  std::vector<std::string> lines;
  for (const PlannedShard& shard : plan.shards) {
    lines.push_back(absl::StrCat(shard.parameter, "@", shard.metadata.placement.server_rank, " ",
                                 ShapeToString(shard.metadata.offsets), " ",
                                 ShapeToString(shard.metadata.sizes)));
  }
  return lines;
}

TEST(PlanTest, SmallParametersStayWholeAndBalanced) {
  ASSERT_OK_AND_ASSIGN(const Plan plan,
                       MakePlan({Float32("a", {100}), Float32("b", {60}), Float32("c", {30}),
                                 Float32("d", {20}), Float32("e", {}), Float32("f", {0, 3})},
                                3));
  // Bytes so far: 400, 240, 120; then d joins c, e and f the fewest.
  EXPECT_THAT(Summary(plan), ElementsAre("0@0 [0] [100]", "1@1 [0] [60]", "2@2 [0] [30]",
                                         "3@2 [0] [20]", "4@2 [] []", "5@2 [0,0] [0,3]"));
}

TEST(PlanTest, LargeParametersAreCutOverAllServers) {
  PlannerOptions options;
  options.whole_below_bytes = 64;
  ASSERT_OK_AND_ASSIGN(const Plan plan,
                       MakePlan({Float32("at the limit", {16}), Float32("rows", {3, 9}),
                                 Float32("columns", {2, 9, 9}), Float32("neither", {2, 2, 2, 2, 2}),
                                 Float32("small", {1})},
                                3, options));
  EXPECT_THAT(Summary(plan),
              ElementsAre("0@0 [0] [16]",                                           //
                          "1@0 [0,0] [1,9]", "1@1 [1,0] [1,9]", "1@2 [2,0] [1,9]",  //
                          "2@0 [0,0,0] [2,3,9]", "2@1 [0,3,0] [2,3,9]", "2@2 [0,6,0] [2,3,9]",
                          "3@0 [0,0,0,0,0] [1,2,2,2,2]", "3@1 [1,0,0,0,0] [1,2,2,2,2]",
                          "3@2 [2,0,0,0,0] [0,2,2,2,2]",  //
                          "4@2 [0] [1]"));
  ASSERT_OK_AND_ASSIGN(
      const Plan whole,
      MakePlan({Float32("1 MiB", {1 << 18}), Float32("above", {(1 << 18) + 1})}, 2));
  EXPECT_THAT(Summary(whole),
              ElementsAre("0@0 [0] [262144]", "1@0 [0] [131073]", "1@1 [131073] [131072]"));
}

TEST(PlanTest, SpecsAreFollowedAndCounted) {
  ASSERT_OK_AND_ASSIGN(
      const Plan plan,
      MakePlan(
          {Float32("a", {4}, Whole{0}),
           Float32("b", {6}, Chunk{0, {{1, "cpu"}, {1, "cpu"}, {0, "cpu"}}}), Float32("c", {1}),
           Float32("d", {2}, Enumerable{{{{1}, {1}, {0, "cpu"}}, {{0}, {1}, {0, "cpu"}}}})},
          2));
  EXPECT_THAT(Summary(plan), ElementsAre("0@0 [0] [4]", "1@1 [0] [2]", "1@1 [2] [2]", "1@0 [4] [2]",
                                         "2@1 [0] [1]", "3@0 [1] [1]", "3@0 [0] [1]"));
}

TEST(PlanTest, AFleetMayHaveServersWithNothing) {
  ASSERT_OK_AND_ASSIGN(const Plan plan, MakePlan({Float32("a", {4})}, 100));
  EXPECT_THAT(Summary(plan), ElementsAre("0@0 [0] [4]"));
  ASSERT_OK_AND_ASSIGN(const Plan nothing, MakePlan({}, 2));
  EXPECT_THAT(nothing.shards, testing::IsEmpty());
}

// Worked out by another program: the id may not depend on build or machine.
TEST(PlanTest, IdIsStable) {
  ASSERT_OK_AND_ASSIGN(const Plan plan,
                       MakePlan({Float32("fc1.weight", {3, 2}, Chunk{0, {{0, "cpu"}, {1, "cpu"}}}),
                                 {"\xC3\xA4", DType::kFloat64, {}, Whole{1, "cuda:0"}}},
                                2));
  EXPECT_EQ(plan.plan_id, "b0ff3045f711067b24c4257a1078274a");
}

TEST(PlanTest, IdTellsPlansApart) {
  const ParameterShape base = Float32("w", {4, 6}, Whole{0});
  std::vector<std::vector<ParameterShape>> variants(10, {base});
  variants[1][0].name = "v";
  variants[2][0].dtype = DType::kFloat64;
  variants[3][0].sizes = {6, 4};
  variants[4][0].spec = Whole{1};
  variants[5][0].spec = Whole{0, "cuda:0"};
  variants[6][0].spec = Chunk{0, {{0, "cpu"}, {0, "cpu"}}};
  variants[7][0].spec = Chunk{1, {{0, "cpu"}, {0, "cpu"}}};
  variants[8].push_back(Float32("b", {1}, Whole{0}));
  variants[9].insert(variants[9].begin(), Float32("b", {1}, Whole{0}));
  absl::flat_hash_set<std::string> ids;
  for (const auto& variant : variants) {
    ASSERT_OK_AND_ASSIGN(const Plan plan, MakePlan(variant, 2));
    EXPECT_EQ(plan.plan_id.size(), 32);
    EXPECT_TRUE(ids.insert(plan.plan_id).second) << "variant " << ids.size();
  }
  ASSERT_OK_AND_ASSIGN(const Plan again, MakePlan(variants[0], 7));
  EXPECT_TRUE(ids.contains(again.plan_id));
}

TEST(AppendToPlanTest, LeavesEarlierShardsAndEqualsOnePlan) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937 random(seed);
  PlannerOptions options;
  options.whole_below_bytes = 2000;
  for (int round = 0; round < 200; ++round) {
    std::vector<ParameterShape> parameters;
    for (size_t i = 0; i < 1 + random() % 20; ++i) {
      parameters.push_back(Float32(absl::StrCat("p", i), {static_cast<int64_t>(random() % 40),
                                                          static_cast<int64_t>(random() % 40)}));
      if (random() % 4 == 0) parameters.back().spec = Chunk{1, {{1, "cpu"}, {0, "cpu"}}};
    }
    const int num_servers = 2 + random() % 4;
    const size_t first_new = random() % (parameters.size() + 1);
    ASSERT_OK_AND_ASSIGN(Plan plan, MakePlan({parameters.data(), first_new}, num_servers, options));
    const Plan before = plan;
    ASSERT_OK(AppendToPlan(&plan, parameters, first_new, num_servers, options));
    ASSERT_OK_AND_ASSIGN(const Plan at_once, MakePlan(parameters, num_servers, options));
    ASSERT_EQ(plan.shards, at_once.shards) << "round " << round;
    ASSERT_EQ(plan.plan_id, at_once.plan_id);
    ASSERT_TRUE(std::equal(before.shards.begin(), before.shards.end(), plan.shards.begin()));
    ASSERT_EQ(before.plan_id == plan.plan_id, first_new == parameters.size());
  }
}

TEST(AppendToPlanTest, FailsWithoutChange) {
  const std::vector<ParameterShape> parameters = {Float32("a", {4}), Float32("b", {4}),
                                                  Float32("a", {4})};
  ASSERT_OK_AND_ASSIGN(Plan plan, MakePlan({parameters.data(), 2}, 2));
  const Plan before = plan;
  EXPECT_THAT(AppendToPlan(&plan, parameters, 2, 2),
              StatusIs(kInvalidArgument, "parameter \"a\": name appears twice"));
  EXPECT_THAT(AppendToPlan(&plan, parameters, 1, 2),
              StatusIs(kInvalidArgument, "plan is not one of the first 1 parameters"));
  EXPECT_THAT(AppendToPlan(&plan, parameters, 3, 2), StatusIs(kInvalidArgument));
  EXPECT_THAT(AppendToPlan(&plan, {parameters[0]}, 2, 2), StatusIs(kInvalidArgument));
  EXPECT_THAT(AppendToPlan(&plan, {parameters[0], parameters[1]}, 2, 1),
              StatusIs(kInvalidArgument, HasSubstr("Invalid rank: 1")));
  EXPECT_EQ(plan.shards, before.shards);
  EXPECT_EQ(plan.plan_id, before.plan_id);
}

TEST(PlanTest, RefusesBadParameters) {
  const auto plan = [](ParameterShape parameter) {
    return MakePlan({Float32("ok", {1}), std::move(parameter)}, 3);
  };
  EXPECT_THAT(plan(Float32("ok", {2})),
              StatusIs(kInvalidArgument, "parameter \"ok\": name appears twice"));
  EXPECT_THAT(plan(Float32("", {2})), StatusIs(kInvalidArgument, "parameter name is empty"));
  for (DType dtype : {DType::kInt64, DType::kComplex64, DType::kInvalid}) {
    EXPECT_THAT(plan({"w", dtype, {2}, {}}),
                StatusIs(kInvalidArgument,
                         absl::StrCat("parameter \"w\": dtype ", DTypeName(dtype),
                                      ", expected float32, float64, float16 or bfloat16")));
  }
  EXPECT_THAT(
      plan({"w", DType::kBFloat16, {2}, {}, /*master=*/false}),
      StatusIs(kInvalidArgument,
               "parameter \"w\": dtype bfloat16 with master=false, expected master=true: "
               "without a float32 master the bits that SGD and RMSprop give would depend on "
               "the sharding"));
  EXPECT_THAT(plan(Float32("w", {-2})),
              StatusIs(kInvalidArgument, "parameter \"w\": shape [-2]: negative size -2"));
  EXPECT_THAT(plan(Float32("w", Shape(9, 1))), StatusIs(kInvalidArgument, HasSubstr("at most 8")));
  constexpr int64_t kQuarter = std::numeric_limits<int64_t>::max() / 4;
  EXPECT_THAT(plan(Float32("w", {kQuarter + 1})),
              StatusIs(kInvalidArgument, HasSubstr("bytes exceed 64 bits")));
  EXPECT_THAT(plan(Float32("w", {kQuarter})),
              StatusIs(kInvalidArgument,
                       "parameter \"w\": bytes of this and the parameters before exceed 64 bits"));
  EXPECT_THAT(plan(Float32("w", {2}, Chunk{1, {{0, "cpu"}}})),
              StatusIs(kInvalidArgument, StartsWith("parameter \"w\": Invalid sharding dim: 1")));
  EXPECT_THAT(plan(Float32("w", {2}, Whole{3})),
              StatusIs(kInvalidArgument,
                       AllOf(StartsWith("parameter \"w\": shard ShardMetadata("),
                             HasSubstr("Invalid rank: 3, expected a server rank below 3"))));
  EXPECT_THAT(MakePlan({}, 0),
              StatusIs(kInvalidArgument, "number of servers is 0, expected at least 1"));
}

TEST(PlanTest, RefusesTooMuch) {
  std::vector<ParameterShape> parameters(kMaxParameters + 1);
  EXPECT_THAT(
      MakePlan(parameters, 1),
      StatusIs(kInvalidArgument, "optimizer has 1000001 parameters, expected at most 1000000"));
  parameters.clear();
  const Chunk chunk = {0, std::vector<Placement>(kMaxShardsPerParameter)};
  for (int i = 0; i < 123; ++i) parameters.push_back(Float32(absl::StrCat("p", i), {1}, chunk));
  EXPECT_THAT(
      MakePlan(parameters, 1),
      StatusIs(kInvalidArgument,
               "parameter \"p122\": optimizer has too many shards, expected at most 2000000"));
}

TEST(PlanTest, PlansAHundredThousandParameters) {
  std::vector<ParameterShape> parameters;
  for (int i = 0; i < 100'000; ++i) {
    parameters.push_back(Float32(absl::StrCat("layers.", i, ".weight"), {i % 7, 3}));
  }
  ASSERT_OK_AND_ASSIGN(const Plan plan, MakePlan(parameters, 8));
  EXPECT_EQ(plan.shards.size(), parameters.size());
}

}  // namespace
}  // namespace shardstep
