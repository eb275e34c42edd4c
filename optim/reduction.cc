#include "shardstep/optim/reduction.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "shardstep/optim/aten_status.h"
#include "shardstep/optim/blocks.h"
#include "shardstep/optim/flat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

void Add(const at::Tensor& values, BlockMeter* meter) {
  const size_t length = values.numel();
  if (values.scalar_type() == at::kFloat) {
    meter->Add(absl::MakeConstSpan(values.const_data_ptr<float>(), length));
  } else {
    meter->Add(absl::MakeConstSpan(values.const_data_ptr<double>(), length));
  }
}

}  // namespace

absl::StatusOr<Reduction> Reduction::Create(std::vector<Contribution> contributions,
                                            at::ScalarType dtype, int64_t elements,
                                            const ReductionOptions& options, Keep keep) {
  SHARDSTEP_ASSIGN_OR_RETURN(
      GradientSum sum, GradientSum::Create(std::move(contributions), dtype, elements, options));
  Reduction reduction;
  reduction.sum_ = std::make_shared<const GradientSum>(std::move(sum));
  reduction.blocks_.resize(BlockCount(elements));
  reduction.tensor_ = reduction.sum_->AsItIs();
  reduction.formed_ = reduction.tensor_.defined();
  // Several are formed once: reading them all again takes longer than writing and reading their
  // sum.
  const bool left = keep == Keep::kAny && reduction.sum_->num_contributions() == 1;
  if (!reduction.formed_ && !left) {
    SHARDSTEP_RETURN_IF_ERROR(CatchAten(
        [&] { reduction.tensor_ = at::empty({elements}, at::TensorOptions().dtype(dtype)); }));
  }
  return reduction;
}

void Reduction::RunBlock(size_t index) {
  BlockResult& result = blocks_[index];
  result.status = CatchAten([&] { result.norm = ComputeBlock(index); });
}

BlockNorm Reduction::ComputeBlock(size_t index) const {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const BlockRange block = BlockAt(static_cast<int64_t>(index), sum_->elements());
  BlockMeter meter;
  if (formed_) {
    Add(PartOf(tensor_, block), &meter);
    return meter.Finish();
  }
  at::Tensor scratch;
  if (!tensor_.defined()) {
    scratch = at::empty({std::min(block.length, kPartElements)},
                        at::TensorOptions().dtype(sum_->dtype()));
  }
  for (int64_t i = 0; i < BlockCount(block.length, kPartElements); ++i) {
    BlockRange part = BlockAt(i, block.length, kPartElements);
    part.begin += block.begin;
    const at::Tensor out =
        tensor_.defined() ? PartOf(tensor_, part) : PartOf(scratch, {0, part.length});
    sum_->Write(part, out);
    Add(out, &meter);
  }
  return meter.Finish();
}

absl::StatusOr<ReducedGradient> Reduction::Finish() {
  ReducedGradient reduced;
  for (const BlockResult& block : blocks_) {
    SHARDSTEP_RETURN_IF_ERROR(block.status);
    reduced.finite = reduced.finite && block.norm.finite;
    reduced.squares = Sum(reduced.squares, block.norm.squares);
  }
  if (tensor_.defined()) {
    reduced.gradient = std::move(tensor_);
    sum_.reset();
  } else {
    reduced.gradient = std::move(sum_);
  }
  return reduced;
}

}  // namespace shardstep
