#include "shardstep/optim/row_wise_adagrad.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>

#include <cmath>

#include "shardstep/optim/block_sums.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

class RowWiseAdagradUpdate : public CoupledUpdate {
 public:
  RowWiseAdagradUpdate(const OptionMap& options, at::ScalarType dtype, double step)
      : gradient_of_(options.IsTrue("maximize"), options.Number("weight_decay"), dtype),
        lr_(options.Number("lr") / (1 + (step - 1) * options.Number("lr_decay"))),
        eps_(options.Number("eps")) {}

  void Update(CoupledBlock& block) const override {
    const at::Tensor gradient = gradient_of_(block);
    std::vector<CompensatedSum> squares(gradient.size(0) * gradient.size(1));
    AddSquares(gradient, Extent::kRow, squares);
    const bool is_float = gradient.scalar_type() == at::kFloat;
    const at::Tensor factors = is_float
                                   ? MoveOn<float>(squares, gradient.size(2), block.states[0])
                                   : MoveOn<double>(squares, gradient.size(2), block.states[0]);
    at::sub_out(block.value_out, block.value_in, at::mul(gradient, factors));
  }

 private:
  // Moves the rows' accumulators on; returns what to multiply each row with.
  template <typename T>
  at::Tensor MoveOn(const std::vector<CompensatedSum>& squares, int64_t columns,
                    const StateBlock& sum) const {
    const at::Tensor factors = at::empty_like(sum.in);
    const T* in = sum.in.const_data_ptr<T>();
    T* out = sum.out.mutable_data_ptr<T>();
    T* factor = factors.mutable_data_ptr<T>();
    for (size_t i = 0; i < squares.size(); ++i) {
      out[i] = in[i] + static_cast<T>(squares[i].hi) / static_cast<T>(columns);
      factor[i] = static_cast<T>(lr_) / (std::sqrt(out[i]) + static_cast<T>(eps_));
    }
    return factors;
  }

  const CoupledGradient gradient_of_;
  const double lr_, eps_;
};

}  // namespace

std::vector<StateSpec> RowWiseAdagradOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> RowWiseAdagradOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("sum", Extent::kRow)};
}

std::optional<double> RowWiseAdagradOptimizer::InitialValue(absl::string_view state,
                                                            const OptionMap& options) const {
  return state == "sum" ? options.Number("initial_accumulator_value") : 0;
}

std::unique_ptr<CoupledUpdate> RowWiseAdagradOptimizer::BeginShard(
    const OptionMap& options, const ShardFacts& facts, absl::Span<double> scalars) const {
  return std::make_unique<RowWiseAdagradUpdate>(options, facts.dtype, NextStep(scalars[0]));
}

}  // namespace shardstep
