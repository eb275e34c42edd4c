// Optimizers: making, attaching, options, reading, deleting.

#include <future>
#include <optional>
#include <string>
#include <vector>

#include "shardstep/tests/conformance.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_P(ConformanceTest, TheFirstValuesStandAndAnEqualDefinitionAttaches) {
  Floats first = Parameters().Like(1), second = Parameters().Like(2);
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer creator,
                       client_->CreateOptimizer(Name(), first.named(), SGDOptions(1.0),
                                                Asynchronous(10), /*trainer_rank=*/0));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer other,
                       client_->CreateOptimizer(Name(), second.named(), SGDOptions(1.0),
                                                Asynchronous(10), /*trainer_rank=*/1));
  ExpectValues(other, 1, 1);
  ASSERT_EQ(other.named_params().size(), 2u);
  EXPECT_EQ(other.named_params()[0].name, "a");
  EXPECT_EQ(other.named_params()[1].name, "b");
  EXPECT_EQ(other.version(), 0u);
  EXPECT_EQ(other.lineage(), creator.lineage());
}

TEST_P(ConformanceTest, TheFirstDifferenceOfAnotherDefinitionIsNamed) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  Floats other_shape;
  other_shape.Add("a", {7}).Add("b", {6});
  const auto refused = [&](const Floats& parameters, const OptimizerOptions& options, Mode mode) {
    const absl::Status status =
        client_->CreateOptimizer(Name(), parameters.named(), options, mode, 0).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(ReasonOf(status), v1::DEFINITION_DIFFERS) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused(other_shape, SGDOptions(1.0), Synchronous(1)),
              HasSubstr("parameter 1 \"b\": shape [5], got [6]"));
  EXPECT_THAT(refused(Parameters(), AdamOptions(1.0), Synchronous(1)), HasSubstr("Adam"));
  EXPECT_THAT(refused(Parameters(), SGDOptions(2.0), Synchronous(1)), HasSubstr("lr"));
  EXPECT_THAT(refused(Parameters(), SGDOptions(1.0), Synchronous(2)),
              HasSubstr("synchronous with 2 trainers"));
}

TEST_P(ConformanceTest, GroupsHaveTheirOwnOptions) {
  Floats values = Parameters();
  std::vector<ParameterGroup> groups(2);
  groups[0].parameters = {values.named()[0]};
  groups[1].parameters = {values.named()[1]};
  groups[1].options = {{"lr", 0.25}};
  ASSERT_OK_AND_ASSIGN(
      ShardedOptimizer optimizer,
      client_->CreateOptimizer(Name(), groups, SGDOptions(1.0), Synchronous(1), 0));
  ASSERT_OK(optimizer.SetOption(0, "weight_decay", 1.0));
  ASSERT_OK(PushAndStep(optimizer, Parameters().Like(1)));
  ASSERT_OK(PushAndStep(optimizer, Parameters().Like(1)));
  ExpectValues(optimizer, -1, -0.5);
  EXPECT_THAT(optimizer.param_groups()[1].params, ElementsAre("b"));
  EXPECT_EQ(optimizer.param_groups()[1].options.Number("weight_decay"), 0);
}

TEST_P(ConformanceTest, ServersThatOwnNothingStepAllTheSame) {
  Floats values;
  values.Add("w", {4}, 0, Whole{1});
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer,
                       client_->CreateOptimizer(Name(), values.named(),
                                                SGDOptions(1.0).momentum(0.5), Synchronous(1), 0));
  for (int step = 0; step < 2; ++step) ASSERT_OK(PushAndStep(optimizer, values.Like(2)));
  ASSERT_OK(optimizer.Pull(values.named()));
  EXPECT_THAT(values["w"], Each(-2 - 3));
}

TEST_P(ConformanceTest, Float64ComesWholeAlsoWithServersWithoutRows) {
  const double third = 1.0 / 3;
  TensorSet<double> values;
  values.Add("w", {2, 1}, third, Rows(kServers));
  ASSERT_OK_AND_ASSIGN(
      ShardedOptimizer optimizer,
      client_->CreateOptimizer(Name(), values.named(), SGDOptions(1.0), Synchronous(1), 0));
  TensorSet<double> pulled = values.Like();
  ASSERT_OK(optimizer.Pull(pulled.named()));
  EXPECT_THAT(pulled["w"], Each(third));
}

TEST_P(ConformanceTest, SetOptionsPersistForEveryTrainer) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  const Floats ones = Parameters().Like(1);
  EXPECT_THAT(optimizer.SetOption(0, "lr", -0.5),
              StatusIs(absl::StatusCode::kInvalidArgument, "Invalid learning rate: -0.5"));
  ASSERT_OK(optimizer.SetOption(0, "lr", 0.25));
  EXPECT_EQ(optimizer.param_groups()[0].options.Number("lr"), 0.25);
  ASSERT_OK(PushAndStep(optimizer, ones));
  ASSERT_OK(PushAndStep(optimizer, ones));
  ExpectValues(optimizer, -0.5, -0.5);
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer attached, Create());
  EXPECT_EQ(attached.param_groups()[0].options.Number("lr"), 0.25);
  ASSERT_OK_AND_ASSIGN(const OptimizerDetails details, client_->Describe(Name()));
  EXPECT_EQ(details.description.groups[0].options.Number("lr"), 0.25);
  EXPECT_EQ(details.description.definition.groups[0].options.Number("lr"), 1.0);
}

TEST_P(ConformanceTest, ReadersPullVersionsAndWaitForLaterOnes) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  ASSERT_OK_AND_ASSIGN(OptimizerReader reader, client_->OpenReader(Name()));
  Floats values = Parameters();
  PullOptions later;
  later.at_least_version = 1;
  later.timeout = absl::Seconds(1);
  EXPECT_THAT(reader.Pull(values.named(), later),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("for version 1")));
  later.timeout = absl::Minutes(1);
  auto waiting = std::async(std::launch::async, [&] { return reader.Pull(values.named(), later); });
  const Floats ones = Parameters().Like(1);
  ASSERT_OK(PushAndStep(optimizer, ones));
  const absl::StatusOr<PullResult> pulled = waiting.get();
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->version, 1u);
  EXPECT_THAT(values["a"], Each(-1));
}

TEST_P(ConformanceTest, ListsDescribesAndDeletes) {
  EXPECT_THAT(client_->Describe(Name()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("not on this fleet")));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(SGDOptions(1.0), Synchronous(2), 1));
  const auto find = [&]() -> std::optional<OptimizerSummary> {
    const auto listed = client_->ListOptimizers();
    EXPECT_OK(listed);
    for (const OptimizerSummary& summary : *listed) {
      if (summary.name == Name()) return summary;
    }
    return std::nullopt;
  };
  const std::optional<OptimizerSummary> summary = find();
  ASSERT_TRUE(summary.has_value());
  EXPECT_EQ(summary->kind, "SGD");
  EXPECT_EQ(summary->state, "live");
  EXPECT_EQ(summary->parameters, 2u);
  EXPECT_EQ(summary->elements, 12u);
  EXPECT_EQ(summary->shards, 4u);
  ASSERT_OK_AND_ASSIGN(const OptimizerDetails details, client_->Describe(Name()));
  EXPECT_EQ(details.description.plan.shards.size(), 4u);
  EXPECT_EQ(details.lineage, optimizer.lineage());
  ASSERT_OK_AND_ASSIGN(const std::vector<SessionSummary> sessions, client_->ListSessions(Name()));
  ASSERT_EQ(sessions.size(), 2u);
  EXPECT_EQ(sessions[0].session, 0u);  // it never came
  EXPECT_NE(sessions[1].session, 0u);
  EXPECT_FALSE(sessions[1].lapsed);

  ASSERT_OK(client_->DeleteOptimizer(Name()));
  EXPECT_FALSE(find().has_value());
  EXPECT_THAT(optimizer.Step(), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(client_->DeleteOptimizer(Name()), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(ConformanceTest, WhatIsWrongIsSaidBeforeAnythingIsSent) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  float data[12] = {};
  ASSERT_OK_AND_ASSIGN(GradientPush push, optimizer.StartPush());
  EXPECT_THAT(push.Add("a", MakeTensorView(data, {6})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("shape [7], got [6]")));
  double wide[7] = {};
  EXPECT_THAT(push.Add("a", MakeTensorView(wide, {7})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("float32, got float64")));
  ASSERT_OK(push.Add("a", MakeTensorView(data, {7})));
  EXPECT_THAT(push.Add("a", MakeTensorView(data, {7})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("added twice")));
  EXPECT_THAT(optimizer.StartPush(), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(push.Finish());
  ASSERT_OK(optimizer.Step());
  const auto create = [&](const std::vector<NamedTensor>& tensors) {
    return client_->CreateOptimizer(Name() + "2", tensors, SGDOptions(1.0), Synchronous(1), 0)
        .status();
  };
  NamedTensor one, two;
  one.name = "one", two.name = "two";
  one.value = MakeTensorView(data, {4});
  two.value = MakeTensorView(data + 3, {4});
  EXPECT_THAT(create({one, two}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("share memory")));
  EXPECT_THAT(create({one, one}), StatusIs(absl::StatusCode::kInvalidArgument));
  one.value.dtype = DType::kInt32;
  EXPECT_THAT(create({one}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("int32")));
  one.value = MakeTensorView(data, {1, 1, 1, 1, 1, 1, 1, 1, 1});
  EXPECT_THAT(create({one}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("9")));
  EXPECT_THAT(client_->Describe(Name() + "2"), StatusIs(absl::StatusCode::kNotFound));
}

INSTANTIATE_TEST_SUITE_P(Fleets, ConformanceTest, testing::Values("InProcess", "Processes"),
                         [](const testing::TestParamInfo<const char*>& info) {
                           return std::string(info.param);
                         });

}  // namespace
}  // namespace shardstep
