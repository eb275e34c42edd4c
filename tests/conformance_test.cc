// What a fleet does for its clients, the same for servers in one process and for real ones. Every
// test has an optimizer of its own name; all share one fleet.

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kServers = 3;

class ConformanceTest : public testing::TestWithParam<const char*> {
 protected:
  static void TearDownTestSuite() { fleets_.clear(); }

  void SetUp() override {
    std::unique_ptr<MiniFleet>& fleet = fleets_[GetParam()];
    if (fleet == nullptr) {
      MiniFleetOptions options;
      options.servers = kServers;
      fleet = GetParam() == std::string("InProcess") ? MakeInProcessFleet(options)
                                                     : MakeProcessFleet(options);
      ASSERT_OK(fleet->Start());
    }
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet->fleet_file()));
    client_ = std::make_unique<Client>(std::move(client));
  }

  // The test's own name, without its parameter.
  static std::string Name() {
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    return name.substr(0, name.find('/'));
  }

  // `a` lies on all servers, `b` on one.
  static Floats Parameters() {
    Floats parameters;
    parameters.Add("a", {7}, 0, Rows(kServers)).Add("b", {5}, 0, Whole{1});
    return parameters;
  }

  absl::StatusOr<ShardedOptimizer> Create(const OptimizerOptions& options = SGDOptions(1.0),
                                          Mode mode = Synchronous(1), int trainer_rank = 0) {
    return client_->CreateOptimizer(Name(), Parameters().named(), options, mode, trainer_rank);
  }

  static void ExpectValues(ShardedOptimizer& optimizer, float a, float b) {
    Floats values = Parameters();
    ASSERT_OK(optimizer.Pull(values.named()));
    EXPECT_THAT(values["a"], Each(a));
    EXPECT_THAT(values["b"], Each(b));
  }

  static std::map<std::string, std::unique_ptr<MiniFleet>> fleets_;
  std::unique_ptr<Client> client_;
};

std::map<std::string, std::unique_ptr<MiniFleet>> ConformanceTest::fleets_;

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

TEST_P(ConformanceTest, PushStepPullAndState) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(SGDOptions(0.5).momentum(0.5)));
  const Floats ones = Parameters().Like(1);
  ASSERT_OK_AND_ASSIGN(const StepResult first, PushAndStep(optimizer, ones));
  EXPECT_EQ(first.version, 1u);
  EXPECT_FALSE(first.skipped);
  EXPECT_EQ(first.grad_norm, std::sqrt(12.0f));
  ASSERT_OK_AND_ASSIGN(const StepResult second, PushAndStep(optimizer, ones));
  EXPECT_EQ(second.version, 2u);
  EXPECT_EQ(optimizer.version(), 2u);
  ExpectValues(optimizer, -1.25, -1.25);  // 0.5 * 1, then 0.5 * 1.5
  ASSERT_OK_AND_ASSIGN(const OptimizerState state, optimizer.state());
  EXPECT_EQ(state.version, 2u);
  ASSERT_EQ(state.state.size(), 2u);
  const auto& buffer = std::get<HostTensor>(state.state.at("a").at("momentum_buffer"));
  EXPECT_EQ(buffer.sizes, Shape{7});
  ASSERT_EQ(buffer.bytes.size(), 7 * sizeof(float));
  const auto* const values = reinterpret_cast<const float*>(buffer.bytes.data());
  EXPECT_THAT(std::vector<float>(values, values + 7), Each(1.5));
  ASSERT_EQ(state.param_groups.size(), 1u);
  EXPECT_THAT(state.param_groups[0].params, ElementsAre("a", "b"));
  EXPECT_EQ(state.param_groups[0].options.Number("momentum"), 0.5);
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

TEST_P(ConformanceTest, ZeroGradDropsOrMakesZeros) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(SGDOptions(1.0).weight_decay(0.5)));
  const Floats ones = Parameters().Like(1);
  ASSERT_OK(PushAndStep(optimizer, ones));  // both are -1
  Floats only_a;
  only_a.Add("a", {7}, 100);
  ASSERT_OK(Push(optimizer, only_a));
  ASSERT_OK(optimizer.ZeroGrad(/*set_to_none=*/false));
  ASSERT_OK(optimizer.Step());
  ExpectValues(optimizer, -0.5, -1);  // a decays by a gradient of zeros; b has none
  ASSERT_OK(Push(optimizer, only_a));
  ASSERT_OK(optimizer.ZeroGrad());
  ASSERT_OK(optimizer.Step());
  ExpectValues(optimizer, -0.5, -1);
  EXPECT_EQ(optimizer.version(), 3u);
}

TEST_P(ConformanceTest, NoneIsNotZero) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(AdamOptions(1.0)));
  Floats zeros;
  zeros.Add("b", {5});
  ASSERT_OK(PushAndStep(optimizer, zeros));
  ASSERT_OK_AND_ASSIGN(const OptimizerState first, optimizer.state());
  EXPECT_EQ(first.state.count("a"), 0u);
  EXPECT_EQ(std::get<double>(first.state.at("b").at("step")), 1);
  ASSERT_OK(PushAndStep(optimizer, Parameters()));
  ASSERT_OK_AND_ASSIGN(const OptimizerState second, optimizer.state());
  EXPECT_EQ(std::get<double>(second.state.at("a").at("step")), 1);
  EXPECT_EQ(std::get<double>(second.state.at("b").at("step")), 2);
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

TEST_P(ConformanceTest, KeepsGradients) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  const Floats ones = Parameters().Like(1);
  StepOptions keep;
  keep.keep_gradients = true;
  ASSERT_OK(PushAndStep(optimizer, ones, keep));
  ASSERT_OK(optimizer.Step(keep));
  ExpectValues(optimizer, -2, -2);
  ASSERT_OK(PushAndStep(optimizer, ones));  // as PyTorch adds to .grad
  ExpectValues(optimizer, -4, -4);
  ASSERT_OK(optimizer.Step());
  ExpectValues(optimizer, -4, -4);
}

TEST_P(ConformanceTest, AccumulatesPushesAndScales) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  const Floats ones = Parameters().Like(1), threes = Parameters().Like(3);
  ASSERT_OK(Push(optimizer, ones));
  ASSERT_OK(Push(optimizer, threes));
  StepOptions options;
  options.grad_scale = 4;
  options.clip_grad_norm = 1;
  ASSERT_OK_AND_ASSIGN(const StepResult step, optimizer.Step(options));
  const float norm = std::sqrt(12.0f);
  EXPECT_EQ(step.grad_norm, norm);
  const float clipped = 1.0f * std::min(1.0f, 1.0f / (norm + 1e-6f));
  ExpectValues(optimizer, -clipped, -clipped);
}

TEST_P(ConformanceTest, TrainersAreWeighedAndAMissingGradientCountsAsZero) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer heavy, Create(SGDOptions(1.0), Synchronous(2), 0));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer light, Create(SGDOptions(1.0), Synchronous(2), 1));
  const Floats twos = Parameters().Like(2);
  Floats only_a;
  only_a.Add("a", {7}, 4);
  PushOptions threefold;
  threefold.weight = 3;
  ASSERT_OK(Push(heavy, twos, threefold));
  ASSERT_OK(Push(light, only_a));
  auto other = StepAsync(light);
  ASSERT_OK(heavy.Step());
  ASSERT_OK(other.get());
  ExpectValues(heavy, -2.5, -1.5);  // (3 * 2 + 4) / 4 and (3 * 2 + 0) / 4
  ASSERT_OK(Push(heavy, twos));
  other = StepAsync(light);
  ASSERT_OK(heavy.Step());
  ASSERT_OK(other.get());
  ExpectValues(light, -3.5, -2.5);
}

TEST_P(ConformanceTest, TwoTrainersGiveHalfTheRowsEachAndAReplicatedParameter) {
  constexpr int64_t kRows = 5, kColumns = 3, kFirstHalf = 2;
  struct Trainer {
    std::vector<float> rows;
    Floats replicated;
    std::vector<NamedTensor> tensors;
  };
  const auto make = [&](int rank, float rows, float replicated) {
    Trainer trainer;
    const int64_t count = rank == 0 ? kFirstHalf : kRows - kFirstHalf;
    trainer.rows.assign(count * kColumns, rows);
    NamedTensor sharded;
    sharded.name = "table";
    sharded.global_sizes = {kRows, kColumns};
    sharded.spec = Rows(kServers);
    sharded.local_shards = {{{{rank * kFirstHalf, 0}, {count, kColumns}, {}},
                             MakeTensorView(trainer.rows.data(), {count, kColumns})}};
    trainer.replicated.Add("bias", {4}, replicated);
    trainer.tensors = {sharded, trainer.replicated.named()[0]};
    return trainer;
  };
  Trainer values[2] = {make(0, 10, 1), make(1, 20, 2)};
  Trainer gradients[2] = {make(0, 1, 4), make(1, 2, 8)};
  std::vector<absl::StatusOr<ShardedOptimizer>> optimizers(2);
  const auto train = [&](int rank) {
    optimizers[rank] = client_->CreateOptimizer(Name(), values[rank].tensors, SGDOptions(1.0),
                                                Synchronous(2), rank);
    ASSERT_OK(optimizers[rank]);
    ASSERT_OK_AND_ASSIGN(GradientPush push, optimizers[rank]->StartPush());
    ASSERT_OK(push.AddShards("table", {gradients[rank].tensors[0].local_shards[0].view}));
    ASSERT_OK(push.Add("bias", gradients[rank].tensors[1].value));
    ASSERT_OK(push.Finish());
    ASSERT_OK(optimizers[rank]->Step());
    ASSERT_OK(optimizers[rank]->Pull(values[rank].tensors));
  };
  std::thread other(train, 1);
  train(0);
  other.join();
  EXPECT_THAT(values[0].rows, Each(9));   // by sum: each row comes from one trainer
  EXPECT_THAT(values[1].rows, Each(18));
  // By mean, from whichever creation was first.
  for (Trainer& trainer : values) {
    EXPECT_THAT(trainer.replicated["bias"], testing::AnyOf(Each(-5), Each(-4)));
  }
  EXPECT_EQ(values[0].replicated["bias"], values[1].replicated["bias"]);
  ASSERT_OK_AND_ASSIGN(OptimizerReader reader, client_->OpenReader(Name()));
  Floats whole;
  whole.Add("table", {kRows, kColumns});
  ASSERT_OK(reader.Pull(whole.named()));
  EXPECT_EQ(whole["table"][kFirstHalf * kColumns - 1], 9);
  EXPECT_EQ(whole["table"][kFirstHalf * kColumns], 18);
}

TEST_P(ConformanceTest, NonFinitePoliciesActOnAllServersOrNone) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(AdamOptions(1.0)));
  Floats infinite = Parameters().Like(1);
  infinite["a"][6] = std::numeric_limits<float>::infinity();  // on the last server alone
  StepOptions options;
  options.non_finite = NonFinite::kRefuse;
  const absl::Status refused = PushAndStep(optimizer, infinite, options).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kAborted, HasSubstr("\"a\"")));
  EXPECT_EQ(ReasonOf(refused), v1::NONFINITE);
  EXPECT_EQ(optimizer.version(), 0u);
  options.non_finite = NonFinite::kSkip;
  ASSERT_OK_AND_ASSIGN(const StepResult skipped, PushAndStep(optimizer, infinite, options));
  EXPECT_TRUE(skipped.skipped);
  EXPECT_EQ(skipped.version, 1u);
  ExpectValues(optimizer, 0, 0);
  ASSERT_OK_AND_ASSIGN(const OptimizerState untouched, optimizer.state());
  EXPECT_TRUE(untouched.state.empty());
  ASSERT_OK_AND_ASSIGN(const StepResult taken, PushAndStep(optimizer, infinite));
  EXPECT_FALSE(taken.skipped);
  Floats values = Parameters();
  ASSERT_OK(optimizer.Pull(values.named()));
  EXPECT_TRUE(std::isnan(values["a"][6]));
  EXPECT_LT(values["a"][0], 0);
}

TEST_P(ConformanceTest, UnequalOptionsOfTwoTrainersAreRefusedByName) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer first, Create(SGDOptions(1.0), Synchronous(2), 0));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer second, Create(SGDOptions(1.0), Synchronous(2), 1));
  const Floats ones = Parameters().Like(1);
  ASSERT_OK(Push(first, ones));
  ASSERT_OK(Push(second, ones));
  StepOptions clip;
  clip.clip_grad_norm = 1;
  auto other = StepAsync(second, clip);
  EXPECT_THAT(first.Step(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("clip_grad_norm")));
  EXPECT_THAT(other.get(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("clip_grad_norm")));
  other = StepAsync(second);
  ASSERT_OK(first.Step());
  ASSERT_OK(other.get());
  ExpectValues(first, -1, -1);
}

TEST_P(ConformanceTest, RefusesGradientsThatAreTooOld) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer fast, Create(SGDOptions(1.0), Asynchronous(1), 0));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer slow, Create(SGDOptions(1.0), Asynchronous(1), 1));
  const Floats ones = Parameters().Like(1);
  Floats pulled = Parameters();
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK(fast.Pull(pulled.named()));
    ASSERT_OK(PushAndStep(fast, ones));
  }
  const absl::Status old = PushAndStep(slow, ones).status();
  EXPECT_THAT(old, StatusIs(absl::StatusCode::kAborted, HasSubstr("2 versions old")));
  EXPECT_EQ(ReasonOf(old), v1::GRADIENT_TOO_OLD);
  ASSERT_OK(slow.Pull(pulled.named()));
  ASSERT_OK(PushAndStep(slow, ones));
  ExpectValues(slow, -3, -3);
}

TEST_P(ConformanceTest, ClosureRunsOnceAndTrainerStateComesBack) {
  const Floats ones = Parameters().Like(1);
  {
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
    EXPECT_EQ(optimizer.trainer_state(), "");
    ASSERT_OK(optimizer.set_trainer_state("batch 17"));
    int runs = 0;
    ASSERT_OK_AND_ASSIGN(const StepResult step,
                         optimizer.Step({}, [&]() -> absl::StatusOr<double> {
                           ++runs;
                           const absl::Status pushed = Push(optimizer, ones);
                           if (!pushed.ok()) return pushed;
                           return 0.5;
                         }));
    EXPECT_EQ(runs, 1);
    EXPECT_EQ(step.loss, 0.5);
  }
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer again, Create());
  EXPECT_EQ(again.trainer_state(), "batch 17");
  EXPECT_EQ(again.version(), 1u);
  ExpectValues(again, -1, -1);
}

TEST_P(ConformanceTest, ReadersPullVersionsAndWaitForLaterOnes) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  ASSERT_OK_AND_ASSIGN(OptimizerReader reader, client_->OpenReader(Name()));
  Floats values = Parameters();
  PullOptions later;
  later.at_least_version = 1;
  later.timeout = absl::Milliseconds(200);
  EXPECT_THAT(reader.Pull(values.named(), later),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("for version 1")));
  later.timeout = absl::Minutes(1);
  auto waiting = std::async(std::launch::async,
                            [&] { return reader.Pull(values.named(), later); });
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
