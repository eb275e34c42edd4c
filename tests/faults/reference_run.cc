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
constexpr double kTrust = 1e-3;

struct Trained {
  std::string name;
  at::Tensor parameter;
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
  at::Tensor momentum_buffer;  // undefined before the first step
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

// In float64, so that the float32 that it becomes is the true one rounded.
double NormOf(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.to(at::kDouble);
  return static_cast<float>(std::sqrt(wide.mul(wide).sum().item<double>()));
}

// LARS as in timm, with the norms of whole parameters.
void StepLars(Trained* trained, const at::Tensor& gradient) {
  const double value = NormOf(trained->parameter);
  const double norm = NormOf(gradient);
  const double ratio = kTrust * value / (norm + value * kWeightDecay + kEps);
  const at::Tensor direction = gradient.add(trained->parameter, kWeightDecay).mul_(ratio);
  if (trained->momentum_buffer.defined()) {
    trained->momentum_buffer.mul_(kMomentum).add_(direction);
  } else {
    trained->momentum_buffer = direction;
  }
  trained->parameter.add_(trained->momentum_buffer, -kLearningRate);
}

}  // namespace

std::map<std::string, std::vector<float>> ReferenceRun(int trainers, uint64_t version,
                                                       bool coupled) {
  Floats model = LedgerModel(trainers);
  std::vector<Trained> all;
  for (const NamedTensor& tensor : model.named()) {
    if (tensor.name == kLedger) continue;
    const at::Tensor parameter = CopyOf(model, tensor.name);
    all.push_back(
        {tensor.name, parameter, at::zeros_like(parameter), at::zeros_like(parameter), {}});
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
      const at::Tensor mean = sums[i].div_(trainers);
      if (coupled) {
        StepLars(&all[i], mean);
      } else {
        Step(&all[i], mean, static_cast<double>(from + 1));
      }
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
