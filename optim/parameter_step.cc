#include "shardstep/optim/parameter_step.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/types/span.h"
#include "shardstep/optim/parts.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {
namespace {

// A coupled update of whole rows, for rows that stand one behind the other: those along the first
// dimension of a parameter of these sizes, each of one row of the update or of several.
std::shared_ptr<const BlockUpdate> UpdateOfRows(std::shared_ptr<const CoupledUpdate> update,
                                                const Shape& sizes) {
  return std::make_shared<const BlockUpdate>(
      [update = std::move(update), columns = sizes.back()](Block& block) {
        if (block.gradient.numel() == 0) return;
        const int64_t rows = block.gradient.numel() / columns;
        CoupledBlock matrix;
        matrix.place = {{0, 0, 0}, {1, rows, columns}};
        matrix.gradient = block.gradient.view({1, rows, columns});
        matrix.value_in = block.value_in.view({1, rows, columns});
        matrix.value_out = block.value_out.view({1, rows, columns});
        for (const StateBlock& state : block.states) {
          matrix.states.push_back({state.in.view({1, rows, -1}), state.out.view({1, rows, -1})});
        }
        update->Update(matrix);
      });
}

// `begins`, by tensor state: what its elements begin with; empty where the update makes them.
std::shared_ptr<const BlockUpdate> UpdateThatBegins(BlockUpdate update,
                                                    std::vector<std::optional<at::Scalar>> begins) {
  return std::make_shared<const BlockUpdate>(
      [update = std::move(update), begins = std::move(begins)](Block& block) {
        for (size_t i = 0; i < begins.size(); ++i) {
          StateBlock& state = block.states[i];
          if (!state.in.defined() && begins[i].has_value()) state.in = state.out.fill_(*begins[i]);
        }
        update(block);
      });
}

BlockUpdate BeginElements(const Optimizer& optimizer, const OptionMap& options,
                          at::ScalarType dtype, bool by_rows, absl::Span<double> scalars) {
  if (!by_rows) {
    BlockUpdate vectorized = optimizer.BeginVectorized(options, dtype, scalars);
    if (vectorized != nullptr) return vectorized;
  }
  return ScaledInParts(by_rows ? optimizer.BeginRows(options, dtype, scalars)
                               : optimizer.Begin(options, dtype, scalars),
                       optimizer.UpdatesAnyPart());
}

}  // namespace

ParameterStep BeginParameter(const Optimizer& optimizer, const OptionMap& options,
                             const ShardFacts& facts, std::vector<ScalarState> scalars,
                             bool by_rows) {
  ParameterStep step;
  step.optimizer = &optimizer;
  step.options = &options;
  step.specs = optimizer.StatesOf(options, facts.sizes);
  step.scalars = std::move(scalars);
  std::vector<double> values;
  std::vector<std::optional<at::Scalar>> begins;
  for (const StateSpec& spec : step.specs) {
    const std::optional<double> initial = optimizer.InitialValue(spec.name, options);
    if (spec.kind == StateSpec::Kind::kScalar) {
      values.push_back(FindOrAdd(spec, initial.value_or(0), &step.scalars).value);
    } else {
      begins.emplace_back();
      if (initial.has_value()) begins.back() = RoundedScalar(*initial, facts.dtype);
    }
  }
  if (by_rows) {
    for (const std::optional<at::Scalar>& begin : begins) step.begins.push_back(begin.value_or(0));
  }
  if (const CoupledOptimizer* coupled = optimizer.AsCoupled()) {
    step.scalars_before = values;
    std::shared_ptr<const CoupledUpdate> update =
        coupled->BeginShard(options, facts, absl::MakeSpan(values));
    step.by_rows = by_rows;
    if (by_rows) step.update = UpdateOfRows(std::move(update), facts.sizes);
    step.facts = facts;
  } else {
    step.by_rows = by_rows && !optimizer.RowsMoveAll(options);
    step.any_part = optimizer.UpdatesAnyPart();
    step.update = UpdateThatBegins(
        BeginElements(optimizer, options, facts.dtype, by_rows, absl::MakeSpan(values)),
        std::move(begins));
  }
  size_t next = 0;
  for (const StateSpec& spec : step.specs) {
    if (spec.kind == StateSpec::Kind::kScalar) {
      FindOrAdd(spec, 0, &step.scalars).value = values[next++];
    }
  }
  return step;
}

}  // namespace shardstep
