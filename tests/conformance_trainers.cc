// Steps of several trainers.

#include <string>
#include <thread>
#include <vector>

#include "shardstep/tests/conformance.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

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
  EXPECT_THAT(values[0].rows, Each(9));  // by sum: each row comes from one trainer
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

TEST_P(ConformanceTest, TheNormCountsAReplicatedParameterOnce) {
  struct Tensors {
    std::vector<float> row;
    Floats replicated;
    std::vector<NamedTensor> named;
  };
  const auto make = [&](int rank, float value) {
    Tensors tensors;
    tensors.row.assign(2, value);
    NamedTensor sharded;
    sharded.name = "table";
    sharded.global_sizes = {2, 2};
    sharded.spec = Rows(kServers);
    sharded.local_shards = {{{{rank, 0}, {1, 2}, {}}, MakeTensorView(tensors.row.data(), {1, 2})}};
    tensors.replicated.Add("bias", {5}, value, Rows(kServers));
    tensors.named = {sharded, tensors.replicated.named()[0]};
    return tensors;
  };
  Tensors values[] = {make(0, 0), make(1, 0)}, gradients[] = {make(0, 2), make(1, 2)};
  std::vector<absl::StatusOr<ShardedOptimizer>> optimizers(2);
  double norms[2] = {};
  const auto train = [&](int rank) {
    optimizers[rank] =
        client_->CreateOptimizer(Name(), values[rank].named, SGDOptions(1.0), Synchronous(2), rank);
    ASSERT_OK(optimizers[rank]);
    ASSERT_OK_AND_ASSIGN(GradientPush push, optimizers[rank]->StartPush());
    ASSERT_OK(push.AddShards("table", {gradients[rank].named[0].local_shards[0].view}));
    ASSERT_OK(push.Add("bias", gradients[rank].named[1].value));
    ASSERT_OK(push.Finish());
    ASSERT_OK_AND_ASSIGN(const StepResult step, optimizers[rank]->Step());
    norms[rank] = step.grad_norm;
  };
  std::thread other(train, 1);
  train(0);
  other.join();
  // sqrt((2 * 2 + 5) * 2^2): both halves of the table, the bias once.
  EXPECT_EQ(norms[0], 6);
  EXPECT_EQ(norms[1], 6);
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

}  // namespace
}  // namespace shardstep
