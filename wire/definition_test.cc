#include "shardstep/wire/definition.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shard_metadata.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/definition.pb.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {
namespace {

using testing::HasSubstr;

template <typename Message>
Message FromText(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

OptimizerDefinition Digits() {
  OptimizerDefinition definition;
  definition.name = "digits";
  definition.kind = "AdamW";
  definition.defaults = CompleteOptions("AdamW", {{"lr", 0.01}}).value();
  OptionMap slow = definition.defaults;
  slow.Set("lr", 0.001);
  slow.Set("note", "kept");
  definition.groups = {{definition.defaults, {"w", "e"}}, {slow, {"b", "s"}}};
  const Enumerable halves{{{{0, 0}, {4, 1}, {0, "cpu"}}, {{0, 1}, {4, 1}, {1, "cpu"}}}};
  definition.parameters = {{"w", DType::kFloat32, {8, 3}, Chunk{-2, {{1, "cpu"}, {0, "cpu"}}}},
                           {"b", DType::kFloat64, {3}, Whole{1, "cpu"}},
                           {"e", DType::kFloat32, {4, 2}, halves},
                           {"s", DType::kFloat32, {}, std::nullopt}};
  definition.sharded = {false, false, true, false};
  definition.mode = Asynchronous(4);
  return definition;
}

OptimizerDescription DigitsDescription() {
  OptimizerDescription description;
  description.definition = Digits();
  description.plan = MakePlan(description.definition.parameters, 2).value();
  description.groups = description.definition.groups;
  description.states = {{"step", StateSpec::Kind::kScalar, DType::kFloat32},
                        {"exp_avg", StateSpec::Kind::kLikeParameter, DType::kInvalid},
                        StateSpec::Tensor("col_var", Extent::kColumn)};
  return description;
}

TEST(DefinitionTest, RoundTrip) {
  const OptimizerDescription description = DigitsDescription();
  const v1::Description proto = DescriptionToProto(description);
  ASSERT_OK_AND_ASSIGN(const OptimizerDescription back, DescriptionFromProto(proto));
  EXPECT_EQ(DescriptionToProto(back).SerializeAsString(), proto.SerializeAsString());
  EXPECT_OK(FirstDifference(description.definition, back.definition));
  EXPECT_EQ(back.plan.shards, description.plan.shards);
  EXPECT_EQ(back.plan.plan_id, description.plan.plan_id);
  EXPECT_EQ(back.groups, description.groups);
  // The same plan comes of it, so the specs came through.
  ASSERT_OK_AND_ASSIGN(const Plan plan, MakePlan(back.definition.parameters, 2));
  EXPECT_EQ(plan.plan_id, description.plan.plan_id);
  EXPECT_EQ(back.states[0].kind, StateSpec::Kind::kScalar);
  EXPECT_EQ(back.states[0].dtype, DType::kFloat32);
  EXPECT_EQ(back.states[1].name, "exp_avg");
  EXPECT_EQ(back.states[1].kind, StateSpec::Kind::kLikeParameter);
  EXPECT_EQ(back.states[1].extent, Extent::kElement);
  EXPECT_EQ(back.states[2].extent, Extent::kColumn);
}

TEST(DefinitionTest, RefusesAStateOfUnknownExtent) {
  v1::Description proto = DescriptionToProto(DigitsDescription());
  proto.mutable_states(2)->set_extent(static_cast<v1::StateSpec::Extent>(9));
  EXPECT_THAT(DescriptionFromProto(proto), StatusIs(absl::StatusCode::kInvalidArgument,
                                                    "state \"col_var\": extent 9 is unknown"));
}

TEST(DefinitionTest, AMasterIsThereUnlessTheDefinitionSaysNo) {
  v1::OptimizerDefinition proto = DefinitionToProto(Digits());
  EXPECT_FALSE(proto.parameters(0).has_master());
  EXPECT_TRUE(DefinitionFromProto(proto)->parameters[0].master);
  proto.mutable_parameters(0)->set_master(false);
  ASSERT_OK_AND_ASSIGN(const OptimizerDefinition without, DefinitionFromProto(proto));
  EXPECT_FALSE(without.parameters[0].master);
  const v1::OptimizerDefinition again = DefinitionToProto(without);
  EXPECT_TRUE(again.parameters(0).has_master());
  EXPECT_FALSE(again.parameters(0).master());
}

TEST(DefinitionTest, CompletesOptions) {
  v1::OptimizerDefinition proto = DefinitionToProto(Digits());
  proto.clear_defaults();
  *proto.mutable_groups(1)->mutable_options() = OptionMapToProto({{"lr", 0.5}});
  ASSERT_OK_AND_ASSIGN(const OptimizerDefinition definition, DefinitionFromProto(proto));
  EXPECT_EQ(definition.defaults, CompleteOptions("AdamW", {}).value());
  EXPECT_EQ(definition.groups[1].options, CompleteOptions("AdamW", {{"lr", 0.5}}).value());
}

TEST(DefinitionTest, RefusesWhatIsWrong) {
  using Change = void (*)(v1::OptimizerDefinition*);
  const struct {
    Change change;
    const char* what;
  } cases[] = {
      {[](auto* d) { d->set_name("../x"); }, "optimizer name \"../x\""},
      {[](auto* d) { d->set_kind("Adamw"); }, "Adamw"},
      {[](auto* d) { d->mutable_defaults(0)->set_name("foo"); },
       "AdamW.__init__() got an unexpected keyword argument 'foo'"},
      {[](auto* d) { *d->add_defaults() = d->defaults(0); }, "option \"lr\": stands twice"},
      {[](auto* d) { d->mutable_defaults(0)->clear_name(); }, "expected 1 to 512"},
      {[](auto* d) { d->mutable_defaults(0)->clear_value(); }, "option \"lr\": value of no known"},
      {[](auto* d) { d->mutable_defaults(0)->mutable_value()->set_double_value(-1); },
       "Invalid learning rate: -1"},
      {[](auto* d) {
         d->mutable_groups(1)->mutable_options(0)->mutable_value()->set_double_value(-1);
       },
       "Invalid learning rate: -1"},
      {[](auto* d) { d->clear_groups(); }, "optimizer got an empty parameter list"},
      {[](auto* d) { d->mutable_groups(0)->add_parameters(4); },
       "group 0: parameter 4, the optimizer has 4"},
      {[](auto* d) { d->mutable_groups(0)->add_parameters(1); },
       "some parameters appear in more than one parameter group"},
      {[](auto* d) { d->mutable_groups(0)->mutable_parameters()->RemoveLast(); },
       "4 parameters, 3 of them in groups"},
      {[](auto* d) { d->mutable_parameters(1)->set_name("w"); }, "\"w\": name appears twice"},
      {[](auto* d) { d->mutable_parameters(1)->clear_name(); }, "parameter name is empty"},
      {[](auto* d) { d->mutable_parameters(1)->set_name("a\nb"); }, "control character"},
      {[](auto* d) { d->mutable_parameters(1)->clear_dtype(); },
       "parameter \"b\": unknown dtype 0"},
      {[](auto* d) { d->mutable_parameters(1)->set_dtype(static_cast<v1::DType>(99)); },
       "unknown dtype 99"},
      {[](auto* d) { d->mutable_parameters(1)->set_sizes(0, -3); }, "parameter \"b\""},
      {[](auto* d) { d->mutable_parameters(1)->add_sizes(int64_t{1} << 62); }, "parameter \"b\""},
      {[](auto* d) {
         for (int i = 0; i < 8; ++i) d->mutable_parameters(1)->add_sizes(1);
       },
       "parameter \"b\""},
      {[](auto* d) { d->mutable_parameters(1)->mutable_spec()->clear_spec(); },
       "parameter \"b\": sharding spec of no known kind"},
      {[](auto* d) {
         d->mutable_parameters(1)->mutable_spec()->mutable_whole()->set_server_rank(-1);
       },
       "Invalid rank: -1"},
      {[](auto* d) {
         d->mutable_parameters(1)->mutable_spec()->mutable_whole()->set_device("/dev");
       },
       "Could not parse remote_device: rank:1//dev"},
      {[](auto* d) {
         d->mutable_parameters(2)
             ->mutable_spec()
             ->mutable_enumerable()
             ->mutable_shards(0)
             ->mutable_region()
             ->add_sizes(1);
       },
       "parameter \"e\": shard_offsets and shard_sizes should have the same number"},
      {[](auto* d) { d->clear_mode(); }, "mode of no known kind"},
      {[](auto* d) { d->mutable_mode()->mutable_synchronous()->set_trainers(0); },
       "mode synchronous with 0 trainers, expected 1 to 65536"},
      {[](auto* d) { d->mutable_mode()->mutable_synchronous()->set_trainers(0xFFFFFFFF); },
       "mode synchronous with 4294967295 trainers"},
  };
  for (const auto& c : cases) {
    v1::OptimizerDefinition proto = DefinitionToProto(Digits());
    c.change(&proto);
    EXPECT_THAT(DefinitionFromProto(proto),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.what)));
  }
}

TEST(DefinitionTest, BoundsWhatSmallMessagesCanBecome) {
  v1::OptimizerDefinition proto = DefinitionToProto(Digits());
  for (size_t i = 0; i < kMaxGroups; ++i) proto.add_groups();
  EXPECT_THAT(DefinitionFromProto(proto), StatusIs(absl::StatusCode::kInvalidArgument,
                                                   HasSubstr("groups, expected at most 65536")));
  proto = DefinitionToProto(Digits());
  for (size_t i = 0; i < kMaxOptions; ++i) proto.mutable_groups(0)->add_options();
  EXPECT_THAT(DefinitionFromProto(proto), StatusIs(absl::StatusCode::kInvalidArgument,
                                                   HasSubstr("options, expected at most 256")));
}

TEST(PlanTest, RefusesWhatDoesNotCoverTheParameters) {
  const std::vector<ParameterShape> parameters = Digits().parameters;
  using Change = void (*)(v1::Plan*);
  const struct {
    Change change;
    const char* what;
  } cases[] = {
      {[](auto* p) { p->clear_plan_id(); }, "plan id"},
      {[](auto* p) { p->mutable_shards()->RemoveLast(); },
       "plan: parameter \"s\": Empty shard list"},
      {[](auto* p) { p->mutable_shards(0)->mutable_metadata()->mutable_region()->set_sizes(0, 3); },
       "do not cover the entire tensor"},
      {[](auto* p) {
         p->mutable_shards(1)->mutable_metadata()->mutable_region()->set_offsets(0, 0);
       },
       "overlap"},
      {[](auto* p) {
         p->mutable_shards(1)->mutable_metadata()->mutable_region()->set_offsets(0, 5);
       },
       "exceeds tensor dim"},
      {[](auto* p) { p->mutable_shards(1)->mutable_metadata()->set_device(""); }, "remote_device"},
      {[](auto* p) { p->mutable_shards()->SwapElements(1, 2); }, "plan: parameter \"w\""},
      {[](auto* p) { *p->add_shards() = p->shards(0); }, "shard 6 is of parameter 0"},
      {[](auto* p) { p->mutable_shards(5)->set_parameter(0xFFFFFFFF); }, "plan: parameter \"s\""},
  };
  const v1::Plan plan = PlanToProto(MakePlan(parameters, 2).value());
  ASSERT_EQ(plan.shards_size(), 6);
  ASSERT_OK(PlanFromProto(plan, parameters));
  for (const auto& c : cases) {
    v1::Plan changed = plan;
    c.change(&changed);
    EXPECT_THAT(PlanFromProto(changed, parameters),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.what)));
  }
}

TEST(OptionValueTest, EveryKindRoundTrips) {
  const OptionValue values[] = {OptionValue(),
                                true,
                                int64_t{1} << 62,
                                0.1,
                                std::numeric_limits<double>::infinity(),
                                "text",
                                OptionValue::List{0.9, OptionValue::List{}, OptionValue(), "x"}};
  for (const OptionValue& value : values) {
    ASSERT_OK_AND_ASSIGN(const OptionValue back, OptionValueFromProto(OptionValueToProto(value)));
    EXPECT_EQ(back.ToString(), value.ToString());
    EXPECT_EQ(back.value().index(), value.value().index());
  }
}

TEST(OptionValueTest, NestingIsBounded) {
  OptionValue value = 1;
  for (int depth = 0; depth < kMaxOptionDepth; ++depth) value = OptionValue::List{value};
  EXPECT_OK(OptionValueFromProto(OptionValueToProto(value)));
  value = OptionValue::List{value};
  EXPECT_THAT(OptionValueFromProto(OptionValueToProto(value)),
              StatusIs(absl::StatusCode::kInvalidArgument, "lists are nested more than 8 deep"));
}

TEST(DTypeTest, RoundTrip) {
  for (int number = 1; number <= 12; ++number) {
    const auto dtype = static_cast<DType>(number);
    EXPECT_THAT(DTypeFromProto(DTypeToProto(dtype)), IsOkAndHolds(dtype));
    std::string name = v1::DType_Name(DTypeToProto(dtype));
    EXPECT_EQ(absl::AsciiStrToLower(name), DTypeName(dtype));
  }
  EXPECT_THAT(DTypeFromProto(static_cast<v1::DType>(257)),
              StatusIs(absl::StatusCode::kInvalidArgument, "unknown dtype 257"));
}

TEST(RegionTest, RefusesWhatCannotBeComputedWith) {
  ASSERT_OK_AND_ASSIGN(const Region region,
                       RegionFromProto(FromText<v1::Region>("offsets: [1, 2] sizes: [3, 0]")));
  EXPECT_EQ(region, (Region{{1, 2}, {3, 0}}));
  EXPECT_EQ(RegionToProto(region).DebugString(),
            FromText<v1::Region>("offsets: [1, 2] sizes: [3, 0]").DebugString());
  for (const char* text :
       {"offsets: 1", "offsets: -1 sizes: 1", "offsets: 1 sizes: -1",
        "offsets: 9223372036854775807 sizes: 1", "offsets: [0, 0] sizes: [4294967296, 4294967296]",
        "offsets: [0,0,0,0,0,0,0,0,0] sizes: [1,1,1,1,1,1,1,1,1]"}) {
    EXPECT_THAT(RegionFromProto(FromText<v1::Region>(text)),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << text;
  }
}

}  // namespace
}  // namespace shardstep
