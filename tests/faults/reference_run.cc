#include "shardstep/tests/faults/reference_run.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <cstring>

#include "shardstep/tests/faults/ledger_model.h"

namespace shardstep {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kEps = 1e-8;

struct Trained {
  std::string name;
  at::Tensor parameter;
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
};

at::Tensor CopyOf(Floats& set, const std::string& name) {
  const absl::Span<float> values = set[name];
  return at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kFloat).clone();
}

// torch.optim.adamw._single_tensor_adamw.
void Step(Trained* trained, const at::Tensor& gradient, double step) {
  trained->parameter.mul_(1 - kLearningRate * kWeightDecay);
  trained->exp_avg.lerp_(gradient, 1 - kBeta1);
  trained->exp_avg_sq.mul_(kBeta2).addcmul_(gradient, gradient, 1 - kBeta2);
  const double step_size = kLearningRate / (1 - std::pow(kBeta1, step));
  const double correction = std::pow(1 - std::pow(kBeta2, step), 0.5);
  const at::Tensor denominator = trained->exp_avg_sq.sqrt().div_(correction).add_(kEps);
  trained->parameter.addcdiv_(trained->exp_avg, denominator, -step_size);
}

}  // namespace

std::map<std::string, std::vector<float>> ReferenceRun(int trainers, uint64_t version) {
  Floats model = LedgerModel(trainers);
  std::vector<Trained> all;
  for (const NamedTensor& tensor : model.named()) {
    if (tensor.name == kLedger) continue;
    const at::Tensor parameter = CopyOf(model, tensor.name);
    all.push_back({tensor.name, parameter, at::zeros_like(parameter), at::zeros_like(parameter)});
  }
  Floats gradients = model.Like();
  for (uint64_t from = 0; from < version; ++from) {
    std::vector<at::Tensor> sums(all.size());
    for (int trainer = 0; trainer < trainers; ++trainer) {
      FillGradients(trainers, trainer, from, &gradients);
      for (size_t i = 0; i < all.size(); ++i) {
        const at::Tensor gradient = CopyOf(gradients, all[i].name);
        sums[i] = trainer == 0 ? gradient : sums[i].add_(gradient);
      }
    }
    for (size_t i = 0; i < all.size(); ++i) {
      Step(&all[i], sums[i].div_(trainers), static_cast<double>(from + 1));
    }
  }
  std::map<std::string, std::vector<float>> result;
  for (const Trained& trained : all) {
    std::vector<float>& values = result[trained.name];
    values.resize(trained.parameter.numel());
    std::memcpy(values.data(), trained.parameter.data_ptr(), trained.parameter.nbytes());
  }
  return result;
}

}  // namespace shardstep
