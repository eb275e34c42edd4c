// What a loaded group says counts, whatever the optimizer was made with: two servers in one thread,
// no sockets.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

class LoadedOptionsTest : public ::testing::Test {
 protected:
  void Start(const OptimizerOptions& options) {
    OptimizerDefinition definition = TestFleet::Definition({{"w", 4}}, {}, Synchronous(1), 2);
    definition.kind = options.kind;
    definition.defaults = CompleteOptions(options.kind, options.given).value();
    definition.groups[0].options = definition.defaults;
    session_ = fleet_.OpenSession(0, "t0");
    ASSERT_OK(fleet_.Create(definition, session_));
  }

  // A strict load of values and `states`, all 1, with these options of their group.
  absl::Status Load(const OptionMap& options, const std::vector<std::string>& states) {
    v1::LoadChange change;
    change.set_digest("d");
    change.set_strict(true);
    v1::LoadChange::Tensors* tensors = change.add_tensors();
    tensors->set_parameter("w");
    tensors->set_dtype(v1::FLOAT32);
    tensors->add_sizes(4);
    tensors->set_value(true);
    Fills fills = {{{"w", ""}, 1}};
    for (const std::string& state : states) {
      tensors->add_states(state);
      fills[{"w", state}] = 1;
    }
    v1::NamedGroup* group = change.add_groups();
    group->add_parameters("w");
    *group->mutable_options() = OptionMapToProto(options);
    Answer<v1::ListOptimizersReply> list;
    fleet_.node(0).ListOptimizers(list.reply());
    v1::ProposeRequest request;
    request.mutable_header()->set_session(session_);
    request.mutable_header()->set_lineage(list->optimizers(0).lineage());
    *request.mutable_load() = PagedMessage(change.SerializeAsString()).page(0).value();
    return fleet_.Propose(request, fills).status();
  }

  OptionMap Options() {
    v1::Description description;
    EXPECT_OK(fleet_.ReadEverything(&description).status());
    return OptionMapFromProto(description.groups(0).options()).value();
  }

  TestFleet fleet_{2, ::testing::TempDir() + "/" +
                          ::testing::UnitTest::GetInstance()->current_test_info()->name()};
  uint64_t session_ = 0;
};

// As PyTorch's AdamW.__setstate__ does.
TEST_F(LoadedOptionsTest, AnAdamWIsDecoupledWhateverTheSourceSays) {
  Start(AdamWOptions());
  ASSERT_OK(Load({{"lr", 0.5}, {"decoupled_weight_decay", false}}, {}));
  EXPECT_EQ(Options().Number("lr"), 0.5);
  EXPECT_TRUE(Options().IsTrue("decoupled_weight_decay"));
}

TEST_F(LoadedOptionsTest, AnAdamWithoutTheDecoupledFlagIsCoupledHoweverItWasMade) {
  Start(AdamOptions().decoupled_weight_decay(true));
  ASSERT_OK(Load({{"lr", 0.5}}, {}));
  EXPECT_EQ(Options().Number("lr"), 0.5);
  EXPECT_FALSE(Options().IsTrue("decoupled_weight_decay"));
}

TEST_F(LoadedOptionsTest, NoStateIsMissingThatTheLoadedOptionsDoNotMake) {
  Start(AdamOptions().amsgrad(true));
  ASSERT_OK(Load({{"amsgrad", false}}, {"step", "exp_avg", "exp_avg_sq"}));
  EXPECT_FALSE(Options().IsTrue("amsgrad"));
}

TEST_F(LoadedOptionsTest, StateThatTheLoadedOptionsMakeIsMissing) {
  Start(AdamOptions());
  EXPECT_THAT(
      Load({{"amsgrad", true}}, {"step", "exp_avg", "exp_avg_sq"}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Missing key(s) in state_dict: "
                                                             "\"optim.state.w.max_exp_avg_sq\"")));
  EXPECT_FALSE(Options().IsTrue("amsgrad"));
}

}  // namespace
}  // namespace shardstep
