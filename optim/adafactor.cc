#include "shardstep/optim/adafactor.h"

#include <ATen/ops/add.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <variant>

#include "shardstep/optim/block_sums.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/squared_norm.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

enum Round { kMoments, kRowMean, kUpdateNorm };

class AdafactorUpdate : public CoupledUpdate {
 public:
  AdafactorUpdate(const OptionMap& options, const ShardFacts& facts, double step)
      : dtype_(facts.dtype),
        factored_(facts.sizes.size() > 1),
        speaks_for_rows_(IsFirstOfExtent(Extent::kRow, facts.region)),
        whole_(MatrixShapeOf(facts.sizes)),
        elements_(static_cast<double>(whole_.matrices * whole_.rows * whole_.columns)),
        maximize_(options.IsTrue("maximize")),
        lr_(options.Number("lr")),
        d_(options.Number("d")),
        weight_decay_(options.Number("weight_decay")),
        decayed_(lr_, weight_decay_, dtype_),
        one_minus_beta2_(RoundedScalar(std::pow(step, options.Number("beta2_decay")), dtype_)),
        rho_(std::min(lr_, 1 / PowHalf(step))) {
    const auto& eps = std::get<OptionValue::List>(options.Find("eps")->value());
    const bool is_float = facts.group_dtype == at::kFloat;
    const double machine_eps =
        is_float ? std::numeric_limits<float>::epsilon() : std::numeric_limits<double>::epsilon();
    const double eps1 = eps[0].AsNumber().value_or(machine_eps);
    eps1_ = RoundedScalar(eps1, dtype_);
    eps1_squared_ = RoundedScalar(eps1 * eps1, dtype_);
    eps2_ = *eps[1].AsNumber();
  }

  std::vector<Extent> Sums(int round) const override {
    if (round == kUpdateNorm) return {Extent::kTensor};
    if (round == kMoments && !factored_) return {Extent::kTensor};
    if (round == kMoments) return {Extent::kTensor, Extent::kRow, Extent::kColumn};
    if (!factored_) return {};
    return {Extent::kMatrix};
  }

  bool ReadsGradient(int round) const override { return round != kRowMean; }

  void AddTerms(int round, const CoupledBlock& block, RoundSums& sums) const override {
    if (round == kMoments) {
      AddSquares(block.value_in, Extent::kTensor, sums[0]);
      if (!factored_) return;
      AddSquares(block.gradient, Extent::kRow, sums[1]);
      AddSquares(block.gradient, Extent::kColumn, sums[2]);
    } else if (round == kRowMean) {
      // Every shard and block of a row has its variance: it counts once.
      if (speaks_for_rows_ && block.place.begin.columns == 0)
        AddValues(block.states[0].out, sums[0]);
    } else {
      AddSquares(Direction(block), Extent::kTensor, sums[0]);
    }
  }

  void TakeTotals(int round, const RoundSums& totals, CoupledBlock& shard) override {
    if (round == kMoments) {
      alpha_ = std::max(eps2_, NormOf(totals) / PowHalf(elements_)) * rho_;
      if (!factored_) return;
      MoveOn(totals[1], whole_.columns, shard.states[0]);
      MoveOn(totals[2], whole_.rows, shard.states[1]);
    } else if (round == kRowMean) {
      const int64_t matrices = shard.place.size.matrices;
      const at::Tensor sums = SumTensor(totals[0], {matrices, 1, 1}, dtype_);
      row_mean_ = sums.div_(RoundedScalar(whole_.rows, dtype_)).clamp_min_(eps1_);
    } else {
      const double excess = NormOf(totals) / (PowHalf(elements_) * d_);
      minus_alpha_ = RoundedScalar(-alpha_ / std::max(1.0, excess), dtype_);
    }
  }

  void Update(CoupledBlock& block) const override {
    const at::Tensor direction = Direction(block);
    if (!factored_) {
      // Direction has read it.
      StateBlock& variance = block.states[0];
      const at::Tensor gradient = GradientOf(block);
      at::lerp_out(variance.out, variance.in, at::mul(gradient, gradient), one_minus_beta2_);
    }
    at::add_out(block.value_out, decayed_(block), direction, minus_alpha_);
  }

 private:
  at::Tensor GradientOf(const Block& block) const {
    return maximize_ ? at::neg(block.gradient) : block.gradient;
  }

  double NormOf(const RoundSums& totals) const { return Norm(totals[0][0], dtype_ == at::kDouble); }

  // A row or column variance takes in the mean of `count` squares.
  void MoveOn(const std::vector<CompensatedSum>& squares, int64_t count, StateBlock& state) const {
    const at::Tensor mean = NormTensor(squares, state.in.sizes(), dtype_).square_();
    mean.div_(RoundedScalar(count, dtype_));
    at::lerp_out(state.out, state.in, mean, one_minus_beta2_);
  }

  // The update before it is clipped.
  at::Tensor Direction(const CoupledBlock& block) const {
    const at::Tensor gradient = GradientOf(block);
    at::Tensor estimate;
    if (factored_) {
      const auto& [begin, size] = block.place;
      estimate = at::mul(block.states[0].out, block.states[1].out);
      estimate.div_(row_mean_.narrow(0, begin.matrices, size.matrices));
    } else {
      estimate = at::lerp(block.states[0].in, at::mul(gradient, gradient), one_minus_beta2_);
    }
    return estimate.clamp_min_(eps1_squared_).rsqrt_().mul_(gradient);
  }

  const at::ScalarType dtype_;
  const bool factored_, speaks_for_rows_;
  const MatrixShape whole_;  // the parameter
  const double elements_;    // of it
  const bool maximize_;
  const double lr_, d_, weight_decay_;
  const DecoupledDecay decayed_;
  const at::Scalar one_minus_beta2_;
  const double rho_;
  double eps2_ = 0;
  at::Scalar eps1_, eps1_squared_;
  // From the totals.
  double alpha_ = 0;
  at::Tensor row_mean_;  // by matrix, not below eps1
  at::Scalar minus_alpha_ = 0;
};

}  // namespace

std::vector<StateSpec> AdafactorOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> AdafactorOptimizer::StatesOf(const OptionMap& /*options*/,
                                                    const Shape& sizes) const {
  const std::vector<StateSpec> all = AllStates();
  if (sizes.size() > 1) return {all[0], all[1], all[2]};
  return {all[0], all[3]};
}

std::vector<StateSpec> AdafactorOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("row_var", Extent::kRow),
          StateSpec::Tensor("col_var", Extent::kColumn), StateSpec::Tensor("variance")};
}

std::unique_ptr<CoupledUpdate> AdafactorOptimizer::BeginShard(const OptionMap& options,
                                                              const ShardFacts& facts,
                                                              absl::Span<double> scalars) const {
  return std::make_unique<AdafactorUpdate>(options, facts, NextStep(scalars[0]));
}

}  // namespace shardstep
