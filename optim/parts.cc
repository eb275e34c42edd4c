#include "shardstep/optim/parts.h"

#include <ATen/ops/mul.h>

#include <utility>

#include "shardstep/optim/blocks.h"
#include "shardstep/optim/flat.h"
#include "shardstep/optim/scalars.h"

namespace shardstep {
namespace {

Block Part(const Block& whole, const BlockRange& range) {
  Block result;
  result.gradient = PartOf(whole.gradient, range);
  result.coefficient = whole.coefficient;
  result.value_in = PartOf(whole.value_in, range);
  result.value_out = PartOf(whole.value_out, range);
  result.states.reserve(whole.states.size());
  for (const StateBlock& state : whole.states) {
    result.states.push_back({PartOf(state.in, range), PartOf(state.out, range)});
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
