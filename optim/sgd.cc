#include "shardstep/optim/sgd.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>

#include <utility>

#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options) {
  const Kernels<T>* kernels = FindKernels<T>();
  if (kernels == nullptr) return nullptr;
  SgdFactors<T> factors;
  factors.gradient =
      CoupledGradientFactors<T>(options.IsTrue("maximize"), options.Number("weight_decay"));
  const double momentum = options.Number("momentum");
  factors.momentum_kind = momentum == 0                ? Momentum::kNone
                          : options.IsTrue("nesterov") ? Momentum::kNesterov
                                                       : Momentum::kHeavyBall;
  factors.momentum = static_cast<T>(momentum);
  factors.undamped = static_cast<T>(1 - options.Number("dampening"));
  factors.minus_lr = static_cast<T>(-options.Number("lr"));
  return [kernels, factors](Block& block) {
    SgdFactors<T> scaled = factors;
    scaled.gradient = Scaled(factors.gradient, block.coefficient);
    SgdArrays<T> arrays = {block.gradient.const_data_ptr<T>(), block.value_in.const_data_ptr<T>(),
                           block.value_out.mutable_data_ptr<T>(), nullptr, nullptr};
    if (factors.momentum_kind != Momentum::kNone) {
      const StateBlock& buffer = block.states[0];
      arrays.buffer_out = buffer.out.mutable_data_ptr<T>();
      arrays.buffer_in = buffer.in.defined() ? buffer.in.const_data_ptr<T>() : nullptr;
    }
    kernels->sgd(scaled, arrays, block.gradient.numel());
  };
}

}  // namespace

std::vector<StateSpec> SgdOptimizer::States(const OptionMap& options) const {
  if (options.Number("momentum") == 0) return {};
  return AllStates();
}

std::vector<StateSpec> SgdOptimizer::AllStates() const {
  return {StateSpec::Tensor("momentum_buffer")};
}

std::optional<double> SgdOptimizer::InitialValue(absl::string_view /*state*/,
                                                 const OptionMap& /*options*/) const {
  return std::nullopt;
}

bool SgdOptimizer::RowsMoveAll(const OptionMap& options) const {
  return options.Number("momentum") != 0;
}

BlockUpdate SgdOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                absl::Span<double> /*scalars*/) const {
  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const double momentum_value = options.Number("momentum");
  const bool has_momentum = momentum_value != 0;
  const bool nesterov = options.IsTrue("nesterov");
  const at::Tensor momentum = ScalarTensor(momentum_value, dtype);
  const at::Scalar nesterov_momentum = RoundedScalar(momentum_value, dtype);
  const at::Scalar undamped = RoundedScalar(1 - options.Number("dampening"), dtype);
  const at::Scalar minus_lr = RoundedScalar(-options.Number("lr"), dtype);
  return [=](Block& block) {
    at::Tensor direction = gradient_of(block);
    if (has_momentum) {
      StateBlock& buffer = block.states[0];
      if (!buffer.in.defined()) {
        buffer.out.copy_(direction);
      } else {
        at::mul_out(buffer.out, buffer.in, momentum);
        buffer.out.add_(direction, undamped);
      }
      direction = nesterov ? at::add(direction, buffer.out, nesterov_momentum) : buffer.out;
    }
    at::add_out(block.value_out, block.value_in, direction, minus_lr);
  };
}

BlockUpdate SgdOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                          absl::Span<double> /*scalars*/) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options) : VectorizedUpdate<double>(options);
}

BlockUpdate SgdOptimizer::BeginRows(const OptionMap& options, at::ScalarType dtype,
                                    absl::Span<double> scalars) const {
  BlockUpdate update = Begin(options, dtype, scalars);
  if (!RowsMoveAll(options) || !options.IsTrue("maximize")) return update;
  // Rows that never had a gradient keep a buffer of +0.0: negated zeros become that.
  return [update = std::move(update)](Block& block) {
    block.gradient = at::neg(block.gradient).add_(0.0).neg_();
    update(block);
  };
}

}  // namespace shardstep
