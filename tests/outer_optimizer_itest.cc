// The fleet as the outer optimizer of DiLoCo (Douillard et al., arXiv 2311.08105): trainers step by
// themselves for a while, and what they push as a gradient is how far they came, old parameter
// minus new. The outer optimizer is SGD with Nesterov momentum.

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

using ::testing::Each;

constexpr int kTrainers = 2;
constexpr int kInnerSteps = 4;
// Powers of two, so that no product is rounded and the order of roundings is plain.
constexpr float kOuterRate = 0.5;
constexpr float kMomentum = 0.5;

Floats MakeModel() {
  return std::move(Floats().Add("a", {7}, 1, Rows(2)).Add("b", {5}, -2, Whole{1}));
}

float InnerRate(int trainer) { return trainer == 0 ? 0.25f : 0.125f; }
float Target(int trainer) { return trainer == 0 ? 4.0f : -8.0f; }

// What a trainer makes of a value in one inner step: SGD on half the squared distance to its
// target.
float InnerStep(float value, int trainer) {
  return value - InnerRate(trainer) * (value - Target(trainer));
}

class Trainer {
 public:
  Trainer(ShardedOptimizer optimizer, int rank)
      : optimizer_(std::move(optimizer)),
        rank_(rank),
        model_(MakeModel()),
        deltas_(model_.Like()) {}

  absl::Status Pull() { return optimizer_.Pull(model_.named()).status(); }
  Floats& model() { return model_; }

  absl::Status Round() {
    SHARDSTEP_RETURN_IF_ERROR(Pull());
    for (const NamedTensor& tensor : model_.named()) {
      const absl::Span<float> values = model_[tensor.name];
      for (size_t i = 0; i < values.size(); ++i) {
        const float begun = values[i];
        for (int step = 0; step < kInnerSteps; ++step) values[i] = InnerStep(values[i], rank_);
        deltas_[tensor.name][i] = begun - values[i];
      }
    }
    return PushAndStep(optimizer_, deltas_).status();
  }

 private:
  ShardedOptimizer optimizer_;
  const int rank_;
  Floats model_;
  Floats deltas_;
};

// The same for one element, in torch.optim.SGD's words.
class Reference {
 public:
  explicit Reference(float value) : value_(value) {}

  void Round() {
    float sum = 0;
    for (int trainer = 0; trainer < kTrainers; ++trainer) {
      float local = value_;
      for (int step = 0; step < kInnerSteps; ++step) local = InnerStep(local, trainer);
      sum += value_ - local;
    }
    const float mean = sum / kTrainers;
    buffer_ = begun_ ? kMomentum * buffer_ + mean : mean;
    begun_ = true;
    value_ -= kOuterRate * (mean + kMomentum * buffer_);
  }
  float value() const { return value_; }

 private:
  float value_;
  float buffer_ = 0;
  bool begun_ = false;
};

TEST(OuterOptimizerTest, StepsByHowFarTheTrainersCame) {
  MiniFleetOptions options;
  options.servers = 2;
  const std::unique_ptr<MiniFleet> fleet = MakeInProcessFleet(options);
  ASSERT_OK(fleet->Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet->fleet_file()));
  const auto create = [&client](int rank) {
    const Floats model = MakeModel();
    return client.CreateOptimizer("outer", model.named(),
                                  SGDOptions(kOuterRate).momentum(kMomentum).nesterov(true),
                                  Synchronous(kTrainers), rank);
  };
  std::vector<std::unique_ptr<Trainer>> trainers;
  for (int rank = 0; rank < kTrainers; ++rank) {
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, create(rank));
    trainers.push_back(std::make_unique<Trainer>(std::move(optimizer), rank));
  }
  Reference a(1);
  Reference b(-2);
  for (int round = 0; round < 2; ++round) {
    std::future<absl::Status> other =
        std::async(std::launch::async, [&trainers] { return trainers[1]->Round(); });
    ASSERT_OK(trainers[0]->Round());
    ASSERT_OK(other.get());
    a.Round();
    b.Round();
  }
  ASSERT_OK(trainers[0]->Pull());
  EXPECT_THAT(trainers[0]->model()["a"], Each(a.value()));
  EXPECT_THAT(trainers[0]->model()["b"], Each(b.value()));
}

}  // namespace
}  // namespace shardstep
