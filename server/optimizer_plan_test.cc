#include "shardstep/server/optimizer_plan.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

std::vector<ParameterShape> Matrix(Shape sizes, std::optional<ShardingSpec> spec = std::nullopt) {
  return {{"w", DType::kFloat32, std::move(sizes), std::move(spec)}};
}

Chunk ChunkOf(int dim) { return Chunk{dim, {{0, "cpu"}, {1, "cpu"}}}; }

TEST(OptimizerPlanTest, MuonsMatricesLieWholeHoweverLargeTheyAre) {
  EXPECT_EQ(MakeOptimizerPlan("Muon", Matrix({4096, 4096}), 3)->shards.size(), 1);
  EXPECT_EQ(MakeOptimizerPlan("AdamW", Matrix({4096, 4096}), 3)->shards.size(), 3);
}

TEST(OptimizerPlanTest, MuonRefusesASpecThatCuts) {
  EXPECT_EQ(MakeOptimizerPlan("Muon", Matrix({4, 6}, ChunkOf(1)), 2).status().message(),
            "parameter \"w\": Muon needs the whole matrix on one server, got a shard of [4,3] at "
            "[0,0] of [4,6]; leave the sharding spec away, or use Whole");
  EXPECT_TRUE(MakeOptimizerPlan("Muon", Matrix({4, 6}, Whole{1, "cpu"}), 2).ok());
}

TEST(OptimizerPlanTest, RowWiseAdagradIsCutBetweenRowsOnly) {
  EXPECT_TRUE(MakeOptimizerPlan("RowWiseAdagrad", Matrix({4, 6}, ChunkOf(0)), 2).ok());
  EXPECT_THAT(MakeOptimizerPlan("RowWiseAdagrad", Matrix({4, 6}, ChunkOf(1)), 2).status().message(),
              HasSubstr("RowWiseAdagrad needs whole rows on one server"));
  // Two rows for three servers: the planner would cut the columns of another kind.
  const auto plan = MakeOptimizerPlan("RowWiseAdagrad", Matrix({2, 1 << 20}), 3);
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const PlannedShard& shard : plan->shards) EXPECT_EQ(shard.metadata.offsets[1], 0);
}

TEST(OptimizerPlanTest, WhatIsRefusedLeavesThePlanAsItWas) {
  std::vector<ParameterShape> parameters = Matrix({4, 6});
  Plan plan = MakeOptimizerPlan("Muon", parameters, 2).value();
  const std::string before = plan.plan_id;
  parameters.push_back({"v", DType::kFloat32, {4, 6}, ChunkOf(0)});
  EXPECT_FALSE(AppendToOptimizerPlan("Muon", &plan, parameters, 1, 2).ok());
  EXPECT_EQ(plan.plan_id, before);
  EXPECT_EQ(plan.shards.size(), 1);
}

}  // namespace
}  // namespace shardstep
