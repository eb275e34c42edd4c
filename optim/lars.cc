#include "shardstep/optim/lars.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>

#include "shardstep/optim/block_sums.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/squared_norm.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

class LarsUpdate : public CoupledUpdate {
 public:
  LarsUpdate(const OptionMap& options, at::ScalarType dtype)
      : dtype_(dtype),
        weight_decay_(options.Number("weight_decay")),
        adapts_(weight_decay_ != 0 || options.IsTrue("always_adapt")),
        trust_coefficient_(options.Number("trust_coefficient")),
        eps_(options.Number("eps")),
        has_momentum_(options.Number("momentum") != 0),
        nesterov_(options.IsTrue("nesterov")),
        gradient_of_(options.IsTrue("maximize"), weight_decay_, dtype),
        momentum_(ScalarTensor(options.Number("momentum"), dtype)),
        nesterov_momentum_(RoundedScalar(options.Number("momentum"), dtype)),
        undamped_(RoundedScalar(1 - options.Number("dampening"), dtype)),
        minus_lr_(RoundedScalar(-options.Number("lr"), dtype)),
        ratio_(ScalarTensor(1, dtype)) {}

  std::vector<Extent> Sums(int /*round*/) const override {
    if (!adapts_) return {};
    return {Extent::kTensor, Extent::kTensor};
  }

  void AddTerms(int /*round*/, const CoupledBlock& block, RoundSums& sums) const override {
    AddSquares(block.value_in, Extent::kTensor, sums[0]);
    AddSquares(block.gradient, Extent::kTensor, sums[1]);
  }

  void TakeTotals(int /*round*/, const RoundSums& totals, CoupledBlock& /*shard*/) override {
    const double value_norm = Norm(totals[0][0], dtype_ == at::kDouble);
    const double norm = Norm(totals[1][0], dtype_ == at::kDouble);
    if (!(value_norm > 0 && norm > 0)) return;
    ratio_ = ScalarTensor(
        trust_coefficient_ * value_norm / (norm + value_norm * weight_decay_ + eps_), dtype_);
  }

  void Update(CoupledBlock& block) const override {
    at::Tensor direction = gradient_of_(block);
    if (adapts_) direction = at::mul(direction, ratio_);
    if (has_momentum_) {
      StateBlock& buffer = block.states[0];
      if (!buffer.in.defined()) {
        buffer.out.copy_(direction);
      } else {
        at::mul_out(buffer.out, buffer.in, momentum_);
        buffer.out.add_(direction, undamped_);
      }
      direction = nesterov_ ? at::add(direction, buffer.out, nesterov_momentum_) : buffer.out;
    }
    at::add_out(block.value_out, block.value_in, direction, minus_lr_);
  }

 private:
  const at::ScalarType dtype_;
  const double weight_decay_;
  const bool adapts_;
  const double trust_coefficient_, eps_;
  const bool has_momentum_, nesterov_;
  const CoupledGradient gradient_of_;
  const at::Tensor momentum_;
  const at::Scalar nesterov_momentum_, undamped_, minus_lr_;
  at::Tensor ratio_;
};

}  // namespace

std::vector<StateSpec> LarsOptimizer::States(const OptionMap& options) const {
  if (options.Number("momentum") == 0) return {};
  return AllStates();
}

std::vector<StateSpec> LarsOptimizer::AllStates() const {
  return {StateSpec::Tensor("momentum_buffer")};
}

std::optional<double> LarsOptimizer::InitialValue(absl::string_view /*state*/,
                                                  const OptionMap& /*options*/) const {
  return std::nullopt;
}

std::unique_ptr<CoupledUpdate> LarsOptimizer::BeginShard(const OptionMap& options,
                                                         const ShardFacts& facts,
                                                         absl::Span<double> /*scalars*/) const {
  return std::make_unique<LarsUpdate>(options, facts.dtype);
}

}  // namespace shardstep
