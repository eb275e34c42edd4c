// Steps that need sums over all shards: three servers in one thread, against one shard in one
// piece, to the last bit. Crashes inside of a round are the simulation's.

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

constexpr int64_t kElements = 300;

class RoundsTest : public ::testing::Test {
 protected:
  RoundsTest() : fleet_(3, Directory(), Options()) {}

  static std::string Directory() {
    return absl::StrCat(std::getenv("TEST_TMPDIR"), "/",
                        ::testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  static NodeOptions Options() {
    NodeOptions options = TestFleet::DefaultOptions();
    options.durability = Durability::kWal;
    options.log_bytes = 1 << 14;
    return options;
  }
  static OptionMap LarsOptions() {
    return CompleteOptions("LARS", {{"lr", 1.0},
                                    {"momentum", 0.5},
                                    {"weight_decay", 0.25},
                                    {"trust_coefficient", 0.125}})
        .value();
  }

  void SetUp() override {
    session_ = fleet_.OpenSession(0, "trainer");
    OptimizerDefinition definition =
        TestFleet::Definition({{"a", kElements}}, {}, Asynchronous{100}, 3);
    definition.kind = "LARS";
    definition.defaults = definition.groups[0].options = LarsOptions();
    ASSERT_OK(fleet_.Create(definition, session_));
    std::vector<ShardValue> shards;
    shards.push_back({0, at::zeros({kElements}, at::kFloat), {}, {}});
    ASSERT_OK_AND_ASSIGN(
        LocalOptimizer whole,
        LocalOptimizer::Create("LARS", {{LarsOptions(), {"a"}}}, {"a"}, std::move(shards)));
    whole_.emplace(std::move(whole));
  }

  absl::Status StepWhole(float gradient) {
    std::vector<ShardGradient> gradients = {at::full({kElements}, gradient, at::kFloat)};
    SHARDSTEP_RETURN_IF_ERROR(whole_->BeginStep(std::move(gradients), std::nullopt));
    const auto run = [this] {
      for (size_t block = 0; block < whole_->num_blocks(); ++block) whole_->RunBlock(block);
    };
    run();
    for (int round = 0; round < whole_->reduce_rounds(); ++round) {
      SHARDSTEP_RETURN_IF_ERROR(whole_->FinishRound().status());
      SHARDSTEP_RETURN_IF_ERROR(whole_->BeginRound({}));
      run();
    }
    return whole_->FinishStep();
  }

  std::unique_ptr<Answer<v1::StepReply>> StepFleet(uint64_t call, float gradient) {
    EXPECT_OK(fleet_.Push(session_, call, {{"a", gradient}}));
    return fleet_.Step(session_, call, call, call);
  }

  void ExpectEqual() {
    ASSERT_OK_AND_ASSIGN(const Values values, fleet_.ReadEverything());
    const LocalState::Shard& shard = whole_->state().shards[0];
    EXPECT_EQ(values.at("a"), ToVector(shard.value));
    EXPECT_EQ(values.at("a/momentum_buffer"), ToVector(shard.states.at(0).tensor));
  }

  static std::vector<float> ToVector(const at::Tensor& tensor) {
    const float* const data = tensor.const_data_ptr<float>();
    return {data, data + tensor.numel()};
  }

  TestFleet fleet_;
  uint64_t session_ = 0;
  std::optional<LocalOptimizer> whole_;
};

TEST_F(RoundsTest, ShardsStepWithTheNormsOfTheWholeParameter) {
  for (uint64_t call = 1; call <= 5; ++call) {
    const float gradient = 0.3f * static_cast<float>(call) - 0.7f;
    ASSERT_OK(StepFleet(call, gradient)->status());
    ASSERT_OK(StepWhole(gradient));
    ASSERT_NO_FATAL_FAILURE(ExpectEqual());
  }
}

TEST_F(RoundsTest, DecisionsWithTheirTotalsAreReplayed) {
  for (uint64_t call = 1; call <= 6; ++call) {
    const float gradient = 0.3f * static_cast<float>(call) - 0.7f;
    ASSERT_OK(StepFleet(call, gradient)->status());
    ASSERT_OK(StepWhole(gradient));
    fleet_.Restart(static_cast<int>(call % 3));
    ASSERT_NO_FATAL_FAILURE(ExpectEqual());
  }
  ASSERT_OK(fleet_.fatal());
}

TEST_F(RoundsTest, StepsAreNotPipelined) {
  ASSERT_OK(fleet_.Push(session_, 1, {{"a", 0.5f}}));
  ASSERT_OK(fleet_.Push(session_, 2, {{"a", -0.7f}}));
  fleet_.Cut(2);
  const auto first = fleet_.Step(session_, 1, 1, 1);
  const auto second = fleet_.Step(session_, 2, 2, 2);
  EXPECT_FALSE(first->there());
  fleet_.Heal(2);
  ASSERT_OK(first->status());
  ASSERT_OK(second->status());
  EXPECT_EQ((*second)->committed().version(), 2u);
  ASSERT_OK(StepWhole(0.5f));
  ASSERT_OK(StepWhole(-0.7f));
  ExpectEqual();
}

TEST_F(RoundsTest, AServerThatDiesBeforeItsSumsGivesThemWhenItIsBack) {
  ASSERT_OK(fleet_.Push(session_, 1, {{"a", 0.5f}}));
  fleet_.Stop(2);
  const auto step = fleet_.Step(session_, 1, 1, 1);
  EXPECT_FALSE(step->there());
  fleet_.Start(2);
  // Its pushes went with its memory.
  EXPECT_EQ(step->status().code(), absl::StatusCode::kAborted);
  ASSERT_OK(fleet_.Push(session_, 1, {{"a", 0.5f}}, 1, 0, /*only_server=*/2));
  ASSERT_OK(fleet_.Step(session_, 1, 1, 1)->status());
  ASSERT_OK(StepWhole(0.5f));
  ExpectEqual();
}

TEST_F(RoundsTest, OptionsThatComeWithAStepCountInItsRounds) {
  ASSERT_OK(StepFleet(1, 0.5f)->status());
  ASSERT_OK(StepWhole(0.5f));
  v1::StepRequest more;
  v1::OptionSetting* setting = more.add_set_options();
  setting->mutable_option()->set_name("trust_coefficient");
  setting->mutable_option()->mutable_value()->set_double_value(0.5);
  ASSERT_OK(fleet_.Push(session_, 2, {{"a", 0.25f}}));
  ASSERT_OK(fleet_.Step(session_, 2, 2, 2, more)->status());
  ASSERT_OK(whole_->SetOption(0, "trust_coefficient", 0.5));
  ASSERT_OK(StepWhole(0.25f));
  ExpectEqual();
}

}  // namespace
}  // namespace shardstep
