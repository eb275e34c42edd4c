#include "shardstep/server/step_sums.h"

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

// A matrix of 4 x 6 in four parts on two servers: rows cut at 1 on the left, at 3 on the right.
Region PartOf(int shard) {
  const Region parts[] = {{{0, 0}, {1, 2}}, {{1, 0}, {3, 2}}, {{0, 2}, {3, 4}}, {{3, 2}, {1, 4}}};
  return parts[shard];
}
int ServerOf(int shard) { return shard % 2; }

std::shared_ptr<const Layout> LayoutOf(int server, const Shape& sizes = {4, 6}) {
  OptimizerDescription description;
  OptimizerDefinition& definition = description.definition;
  definition.name = "sums";
  definition.kind = "SGD";
  Enumerable spec;
  for (int shard = 0; shard < 4; ++shard) {
    const Region part = PartOf(shard);
    spec.shards.push_back({ToShape(part.offsets), ToShape(part.sizes), {ServerOf(shard), "cpu"}});
  }
  definition.parameters.push_back({"w", DType::kFloat32, sizes, spec});
  definition.sharded = {false};
  definition.groups = {{{}, {"w"}}};
  description.groups = definition.groups;
  description.plan = MakePlan(definition.parameters, 2).value();
  return Layout::Make(DescriptionToProto(description), server).value();
}

// Per row: of an element in row i, 10^i; every element counts once.
std::vector<ShardSums> RowSumsOf(const Layout& layout) {
  std::vector<ShardSums> sums;
  for (size_t local = 0; local < layout.local.size(); ++local) {
    ShardSums& part = sums.emplace_back();
    part.shard = local;
    part.extent = Extent::kRow;
    const Region& region = layout.local[local].region;
    double value = 1;
    for (int64_t row = 0; row < region.offsets[0]; ++row) value *= 10;
    for (int64_t row = 0; row < region.sizes[0]; ++row, value *= 10) {
      part.values.push_back({value * static_cast<double>(region.sizes[1]), 0});
    }
  }
  return sums;
}

v1::Reduced AnswerOf(const Layout& layout, const std::vector<ShardSums>& sums) {
  v1::Reduced answer;
  for (const v1::ShardSum& sum : ShardSumsToProto(layout, sums)) *answer.add_sums() = sum;
  return answer;
}

std::vector<v1::Reduced> Answers() {
  std::vector<v1::Reduced> answers;
  for (int server = 0; server < 2; ++server) {
    const auto layout = LayoutOf(server);
    answers.push_back(AnswerOf(*layout, RowSumsOf(*layout)));
  }
  return answers;
}

TEST(StepSumsTest, RowsAreAddedOverAllShardsThatCutThem) {
  const auto layout = LayoutOf(1);
  const auto totals = AddUp(*layout, Answers());
  ASSERT_TRUE(totals.ok()) << totals.status();
  ASSERT_EQ(totals->totals_size(), 1);
  EXPECT_THAT(totals->totals(0).hi(), testing::ElementsAre(6, 60, 600, 6000));

  const std::vector<ShardSums> asked = RowSumsOf(*layout);
  const auto parts = TotalsFor(*layout, asked, *totals);
  ASSERT_TRUE(parts.ok()) << parts.status();
  ASSERT_EQ(parts->size(), 2);
  // Shard 1: rows 1 to 3; shard 3: row 3.
  EXPECT_EQ((*parts)[0].values, (std::vector<CompensatedSum>{{60, 0}, {600, 0}, {6000, 0}}));
  EXPECT_EQ((*parts)[1].values, (std::vector<CompensatedSum>{{6000, 0}}));
}

TEST(StepSumsTest, TheLowPartsAreNotLost) {
  const auto layout = LayoutOf(0);
  std::vector<v1::Reduced> answers(2);
  for (int shard = 0; shard < 4; ++shard) {
    v1::ShardSum* sum = answers[ServerOf(shard)].add_sums();
    sum->set_shard(shard);
    sum->set_extent(v1::StateSpec::TENSOR);
    sum->add_hi(shard == 0 ? 1e16 : 0.25);
    sum->add_lo(0);
  }
  const auto totals = AddUp(*layout, answers);
  ASSERT_TRUE(totals.ok()) << totals.status();
  EXPECT_EQ(totals->totals(0).hi(0), 1e16);
  EXPECT_EQ(totals->totals(0).lo(0), 0.75);
}

TEST(StepSumsTest, WhatIsNotAServersOrDoesNotFitIsRefused) {
  const auto layout = LayoutOf(0);
  std::vector<v1::Reduced> answers = Answers();
  answers[1].mutable_sums(0)->set_shard(0);
  EXPECT_THAT(AddUp(*layout, answers).status().message(), HasSubstr("another server owns it"));
  answers[1].mutable_sums(0)->set_shard(9);
  EXPECT_THAT(AddUp(*layout, answers).status().message(), HasSubstr("no such shard"));
  answers = Answers();
  answers[1].mutable_sums(0)->add_hi(1);
  EXPECT_THAT(AddUp(*layout, answers).status().message(),
              HasSubstr("server 1: sum 0 of shard 1: 4 and 3 values, expected 3"));
  answers = Answers();
  answers[1].mutable_sums(0)->set_extent(static_cast<v1::StateSpec::Extent>(17));
  EXPECT_THAT(AddUp(*layout, answers).status().message(), HasSubstr("unknown extent"));
}

TEST(StepSumsTest, TotalsThatLackWhatWasAskedAreRefused) {
  const auto layout = LayoutOf(0);
  EXPECT_EQ(TotalsFor(*layout, RowSumsOf(*layout), {}).status().message(),
            "parameter \"w\": expected a total of 4 values of sum 0 per row");
}

}  // namespace
}  // namespace shardstep
