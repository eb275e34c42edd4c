#include "shardstep/optim/parts.h"

#include <ATen/ops/mul.h>

#include <utility>

#include "shardstep/optim/blocks.h"
#include "shardstep/optim/scalars.h"

namespace shardstep {
namespace {

Block Part(const Block& whole, const BlockRange& range) {
  const auto part = [&range](const at::Tensor& flat) {
    return flat.defined() ? flat.narrow(0, range.begin, range.length) : at::Tensor();
  };
  Block result;
  result.gradient = part(whole.gradient);
  result.coefficient = whole.coefficient;
  result.value_in = part(whole.value_in);
  result.value_out = part(whole.value_out);
  result.states.reserve(whole.states.size());
  for (const StateBlock& state : whole.states) {
    result.states.push_back({part(state.in), part(state.out)});
  }
  return result;
}

void Scale(Block& block) {
  if (block.coefficient == 1) return;
  block.gradient =
      at::mul(block.gradient, ScalarTensor(block.coefficient, block.gradient.scalar_type()));
  block.coefficient = 1;
}

}  // namespace

BlockUpdate ScaledInParts(BlockUpdate update, bool any_part) {
  return [update = std::move(update), any_part](Block& whole) {
    if (!any_part) {
      Scale(whole);
      update(whole);
      return;
    }
    const int64_t elements = whole.gradient.numel();
    for (int64_t i = 0; i < BlockCount(elements, kPartElements); ++i) {
      Block part = Part(whole, BlockAt(i, elements, kPartElements));
      Scale(part);
      update(part);
    }
  };
}

}  // namespace shardstep
