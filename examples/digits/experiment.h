// The experiment that the fleet's trainers and the single process share: network, data, seeds.
// Header-only, so that LibTorch's large header is compiled once in each program. For one thread.
#ifndef SHARDSTEP_EXAMPLES_DIGITS_EXPERIMENT_H_
#define SHARDSTEP_EXAMPLES_DIGITS_EXPERIMENT_H_

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/examples/digits/batch_order.h"
#include "shardstep/examples/digits/digits_file.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

inline constexpr char kDigitsPath[] = "examples/digits/data/digits.csv.gz";
inline constexpr uint64_t kSeed = 1998;
inline constexpr int64_t kBatchSize = 64;
inline constexpr uint64_t kSteps = 4400;  // 200 epochs
inline constexpr int kTrainers = 2;

inline AdamWOptions DigitsOptimizer() { return AdamWOptions(2e-3).weight_decay(0.01); }

struct NetworkImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& pixels) { return fc2(torch::relu(fc1(pixels))); }

  torch::nn::Linear fc1 = register_module("fc1", torch::nn::Linear(kPixels, 128));
  torch::nn::Linear fc2 = register_module("fc2", torch::nn::Linear(128, kClasses));
};
TORCH_MODULE(Network);

// The network that every process starts from. Also sets LibTorch to one thread: sums are then
// formed in one order.
inline Network MakeNetwork() {
  torch::set_num_threads(1);
  torch::manual_seed(kSeed);
  return Network();
}

struct Batch {
  torch::Tensor x;
  torch::Tensor y;
};

// What one trainer sees of the digits.
class TrainingData {
 public:
  static absl::StatusOr<TrainingData> Load(const std::string& path, uint64_t steps, int trainers,
                                           int trainer_rank) {
    SHARDSTEP_ASSIGN_OR_RETURN(Digits digits, ReadDigits(path));
    const RowSplit split = SplitRows(digits.rows(), kSeed);
    SHARDSTEP_ASSIGN_OR_RETURN(BatchOrder order,
                               BatchOrder::Create(split.train, kBatchSize, trainers, kSeed));
    TrainingData data(std::move(digits), std::move(order), steps, trainer_rank);
    data.test_ = data.Rows(split.test);
    return data;
  }

  // This trainer's part of the batch at `position`, counted from 0; nothing once all steps are
  // made.
  std::optional<Batch> At(uint64_t position) const {
    if (position >= steps_) return std::nullopt;
    return Rows(order_.Rows(position, trainer_rank_));
  }

  // Whether an epoch ends before `position`.
  bool EndsEpoch(uint64_t position) const {
    return position % static_cast<uint64_t>(order_.batches_per_epoch()) == 0;
  }

  // The part of the test rows that `network` names rightly.
  double Accuracy(Network& network) const {
    const torch::NoGradGuard no_grad;
    return network->forward(test_.x).argmax(1).eq(test_.y).to(torch::kDouble).mean().item<double>();
  }

 private:
  TrainingData(Digits digits, BatchOrder order, uint64_t steps, int trainer_rank)
      : digits_(std::move(digits)),
        order_(std::move(order)),
        steps_(steps),
        trainer_rank_(trainer_rank) {}

  Batch Rows(const std::vector<int64_t>& rows) const {
    std::vector<float> pixels;
    std::vector<int64_t> labels;
    for (const int64_t row : rows) {
      const auto begin = digits_.pixels.begin() + row * kPixels;
      pixels.insert(pixels.end(), begin, begin + kPixels);
      labels.push_back(digits_.labels[static_cast<size_t>(row)]);
    }
    return {torch::tensor(pixels).view({-1, kPixels}), torch::tensor(labels)};
  }

  Digits digits_;
  BatchOrder order_;
  uint64_t steps_;
  int trainer_rank_;
  Batch test_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_EXAMPLES_DIGITS_EXPERIMENT_H_
