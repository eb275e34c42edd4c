#include "shardstep/optim/local_state.h"

#include <utility>

namespace shardstep {

const at::Tensor* FindState(const std::vector<TensorState>& states, absl::string_view name) {
  for (const TensorState& state : states) {
    if (state.name == name) return &state.tensor;
  }
  return nullptr;
}

void PutState(TensorState state, std::vector<TensorState>* states) {
  for (TensorState& existing : *states) {
    if (existing.name == state.name) {
      existing.tensor = std::move(state.tensor);
      return;
    }
  }
  states->push_back(std::move(state));
}

ScalarState& FindOrAdd(const StateSpec& spec, double initial, std::vector<ScalarState>* scalars) {
  for (ScalarState& scalar : *scalars) {
    if (scalar.name == spec.name) return scalar;
  }
  return scalars->emplace_back(ScalarState{spec.name, initial, spec.dtype});
}

Shape StateSizes(const at::Tensor& value, const Region& region, Extent extent) {
  // Where a value lies matters to those alone that keep something per row.
  if (extent == Extent::kElement) return value.sizes().vec();
  return ExtentSizes(extent, region.sizes);
}

}  // namespace shardstep
