#include "shardstep/optim/muon.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/norm.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <variant>

#include "shardstep/optim/scalars.h"

namespace shardstep {
namespace {

// The number that lr is multiplied with for a matrix of these sizes.
double AdjustedRatio(const OptionMap& options, const Shape& sizes) {
  const double rows = static_cast<double>(sizes[0]), columns = static_cast<double>(sizes[1]);
  if (*options.Find("adjust_lr_fn") == OptionValue("match_rms_adamw")) {
    return 0.2 * std::sqrt(std::max(rows, columns));
  }
  return std::sqrt(std::max(1.0, rows / columns));
}

class MuonUpdate : public CoupledUpdate {
 public:
  MuonUpdate(const OptionMap& options, const ShardFacts& facts)
      : nesterov_(options.IsTrue("nesterov")),
        steps_(static_cast<int>(options.Number("ns_steps"))),
        eps_(RoundedScalar(options.Number("eps"), at::kFloat)),
        momentum_(RoundedScalar(options.Number("momentum"), facts.dtype)),
        one_minus_momentum_(RoundedScalar(1 - options.Number("momentum"), facts.dtype)),
        decay_(
            ScalarTensor(1 - options.Number("lr") * options.Number("weight_decay"), facts.dtype)),
        minus_lr_(RoundedScalar(-(options.Number("lr") * AdjustedRatio(options, facts.sizes)),
                                facts.dtype)) {
    const auto& list = std::get<OptionValue::List>(options.Find("ns_coefficients")->value());
    for (size_t i = 0; i < coefficients_.size(); ++i) {
      coefficients_[i] = RoundedScalar(*list[i].AsNumber(), at::kFloat);
    }
  }

  void Update(CoupledBlock& block) const override {
    StateBlock& buffer = block.states[0];
    at::lerp_out(buffer.out, buffer.in, block.gradient, one_minus_momentum_);
    const at::Tensor update =
        nesterov_ ? at::lerp(block.gradient, buffer.out, momentum_) : buffer.out;
    const at::Tensor direction = Orthogonalized(update.select(0, 0));
    at::mul_out(block.value_out, block.value_in, decay_);
    block.value_out.select(0, 0).add_(direction, minus_lr_);
  }

 private:
  // PyTorch's _zeropower_via_newtonschulz.
  at::Tensor Orthogonalized(const at::Tensor& matrix) const {
    const bool is_tall = matrix.size(0) > matrix.size(1);
    const auto [a, b, c] = coefficients_;
    at::Tensor result = matrix.to(at::kBFloat16);
    if (is_tall) result = result.t();
    result.div_(result.norm().clamp_min(eps_));
    for (int i = 0; i < steps_; ++i) {
      const at::Tensor gram = at::mm(result, result.t());
      result = at::addmm(result, at::addmm(gram, gram, gram, b, c), result, a);
    }
    return is_tall ? result.t() : result;
  }

  const bool nesterov_;
  const int steps_;
  const at::Scalar eps_, momentum_, one_minus_momentum_;
  const at::Tensor decay_;
  const at::Scalar minus_lr_;
  std::array<at::Scalar, 3> coefficients_;
};

}  // namespace

std::vector<StateSpec> MuonOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> MuonOptimizer::AllStates() const {
  return {StateSpec::Tensor("momentum_buffer")};
}

std::unique_ptr<CoupledUpdate> MuonOptimizer::BeginShard(const OptionMap& options,
                                                         const ShardFacts& facts,
                                                         absl::Span<double> /*scalars*/) const {
  return std::make_unique<MuonUpdate>(options, facts);
}

}  // namespace shardstep
