#include "shardstep/optim/lamb.h"

#include <ATen/ops/add.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/neg.h>

#include <cmath>

#include "shardstep/optim/block_sums.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/square_root.h"
#include "shardstep/optim/squared_norm.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

class LambUpdate : public CoupledUpdate {
 public:
  LambUpdate(const OptionMap& options, at::ScalarType dtype, double step)
      : dtype_(dtype),
        maximize_(options.IsTrue("maximize")),
        decays_(options.Number("weight_decay") != 0),
        adapts_(decays_ || options.IsTrue("always_adapt")),
        lr_(options.Number("lr")),
        moments_(NumberPair(options, "betas").first, NumberPair(options, "betas").second, dtype),
        eps_(RoundedScalar(options.Number("eps"), dtype)),
        weight_decay_(RoundedScalar(options.Number("weight_decay"), dtype)) {
    const auto [beta1, beta2] = NumberPair(options, "betas");
    bias_correction1_ = RoundedScalar(1 - std::pow(beta1, step), dtype);
    bias_correction2_sqrt_ = RoundedScalar(PowHalf(1 - std::pow(beta2, step)), dtype);
  }

  std::vector<Extent> Sums(int /*round*/) const override {
    if (!adapts_) return {};
    return {Extent::kTensor, Extent::kTensor};
  }

  void AddTerms(int /*round*/, const CoupledBlock& block, RoundSums& sums) const override {
    // The moments are written in the update alone.
    StateBlock exp_avg = {block.states[0].in, at::empty_like(block.states[0].in)};
    StateBlock exp_avg_sq = {block.states[1].in, at::empty_like(block.states[1].in)};
    AddSquares(block.value_in, Extent::kTensor, sums[0]);
    AddSquares(Direction(block, exp_avg, exp_avg_sq), Extent::kTensor, sums[1]);
  }

  void TakeTotals(int /*round*/, const RoundSums& totals, CoupledBlock& /*shard*/) override {
    const double value_norm = Norm(totals[0][0], dtype_ == at::kDouble);
    const double norm = Norm(totals[1][0], dtype_ == at::kDouble);
    if (value_norm > 0 && norm > 0) ratio_ = value_norm / norm;
  }

  void Update(CoupledBlock& block) const override {
    const at::Tensor direction = Direction(block, block.states[0], block.states[1]);
    at::add_out(block.value_out, block.value_in, direction, RoundedScalar(-lr_ * ratio_, dtype_));
  }

 private:
  at::Tensor Direction(const Block& block, StateBlock& exp_avg, StateBlock& exp_avg_sq) const {
    moments_(maximize_ ? at::neg(block.gradient) : block.gradient, exp_avg, exp_avg_sq);
    const at::Tensor denominator = Sqrt(exp_avg_sq.out);
    denominator.div_(bias_correction2_sqrt_).add_(eps_);
    const at::Tensor direction = at::div(exp_avg.out, bias_correction1_).div_(denominator);
    if (decays_) direction.add_(block.value_in, weight_decay_);
    return direction;
  }

  const at::ScalarType dtype_;
  const bool maximize_, decays_, adapts_;
  const double lr_;
  const AdamMoments moments_;
  const at::Scalar eps_, weight_decay_;
  at::Scalar bias_correction1_, bias_correction2_sqrt_;
  double ratio_ = 1;
};

}  // namespace

std::vector<StateSpec> LambOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> LambOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("exp_avg"), StateSpec::Tensor("exp_avg_sq")};
}

std::unique_ptr<CoupledUpdate> LambOptimizer::BeginShard(const OptionMap& options,
                                                         const ShardFacts& facts,
                                                         absl::Span<double> scalars) const {
  return std::make_unique<LambUpdate>(options, facts.dtype, NextStep(scalars[0]));
}

}  // namespace shardstep
