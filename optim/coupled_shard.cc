#include "shardstep/optim/coupled_shard.h"

#include <ATen/ops/mul.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/scalars.h"

namespace shardstep {
namespace {

at::Tensor InMatrices(const at::Tensor& tensor, const MatrixShape& shape) {
  if (!tensor.defined()) return tensor;
  return tensor.view({shape.matrices, shape.rows, shape.columns});
}

// A box of a tensor, along the dimensions that it has.
at::Tensor Box(at::Tensor tensor, const MatrixBlock& place) {
  if (!tensor.defined()) return tensor;
  const auto narrow = [&tensor](int64_t dim, int64_t begin, int64_t length) {
    const bool is_whole = begin == 0 && length == tensor.size(dim);
    if (!is_whole && tensor.size(dim) > 1) tensor = tensor.narrow(dim, begin, length);
  };
  narrow(0, place.begin.matrices, place.size.matrices);
  narrow(1, place.begin.rows, place.size.rows);
  narrow(2, place.begin.columns, place.size.columns);
  return tensor;
}

}  // namespace

bool HasOtherTerms(Extent extent, const Region& region, const Shape& sizes) {
  const Shape kept = ExtentSizes(extent, Shape(sizes.size(), 2));
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (kept[i] == 1 && region.sizes[i] != sizes[i]) return true;
  }
  return false;
}

CoupledShard::CoupledShard(std::unique_ptr<CoupledUpdate> update, size_t index,
                           const ShardFacts& facts, const std::vector<StateSpec>& states,
                           const Block& shard, Coupling::Cut cut, int64_t block_elements,
                           std::optional<double> coefficient)
    : update_(std::move(update)),
      index_(index),
      facts_(facts),
      coefficient_(coefficient),
      shape_(MatrixShapeOf(facts.region.sizes)),
      blocks_(MatrixBlocks(shape_, cut, block_elements)) {
  shard_.place = {{0, 0, 0}, shape_};
  shard_.gradient = InMatrices(shard.gradient, shape_);
  shard_.value_in = InMatrices(shard.value_in, shape_);
  shard_.value_out = InMatrices(shard.value_out, shape_);
  size_t next = 0;
  for (const StateSpec& state : states) {
    if (state.kind == StateSpec::Kind::kScalar) continue;
    extents_of_states_.push_back(state.extent);
    const MatrixShape kept = MatrixShapeOf(ExtentSizes(state.extent, facts.region.sizes));
    const StateBlock& block = shard.states[next++];
    shard_.states.push_back({InMatrices(block.in, kept), InMatrices(block.out, kept)});
  }
}

void CoupledShard::ReleaseInputs() {
  shard_.value_in.reset();
  for (StateBlock& state : shard_.states) {
    if (!state.out.defined()) state.in.reset();
  }
}

void CoupledShard::PlaceOutputs(const Block& shard) {
  shard_.value_in = InMatrices(shard.value_in, shape_);
  shard_.value_out = InMatrices(shard.value_out, shape_);
  for (size_t i = 0; i < shard.states.size(); ++i) {
    if (!shard.states[i].out.defined()) continue;
    const MatrixShape kept = MatrixShapeOf(ExtentSizes(extents_of_states_[i], facts_.region.sizes));
    shard_.states[i] = {InMatrices(shard.states[i].in, kept),
                        InMatrices(shard.states[i].out, kept)};
  }
}

size_t CoupledShard::BeginRound(int round) {
  round_ = round;
  extents_ = update_->Sums(round);
  terms_.assign(extents_.empty() ? 0 : blocks_.size(), {});
  return terms_.size();
}

size_t CoupledShard::BeginUpdate() {
  updating_ = true;
  return blocks_.size();
}

CoupledBlock CoupledShard::Part(const MatrixBlock& place, bool with_gradient) const {
  CoupledBlock block;
  block.place = place;
  block.value_in = Box(shard_.value_in, place);
  block.value_out = Box(shard_.value_out, place);
  for (const StateBlock& state : shard_.states) {
    block.states.push_back({Box(state.in, place), Box(state.out, place)});
  }
  if (!with_gradient) return block;
  block.gradient = Box(shard_.gradient, place);
  if (coefficient_.has_value()) {
    block.gradient =
        at::mul(block.gradient, ScalarTensor(*coefficient_, block.gradient.scalar_type()));
  }
  return block;
}

RoundSums CoupledShard::Zeros(const MatrixBlock& place) const {
  RoundSums zeros;
  for (const Extent extent : extents_) {
    zeros.emplace_back(ExtentRangeOf(place, extent, shape_).length);
  }
  return zeros;
}

void CoupledShard::RunBlock(size_t index) {
  const MatrixBlock& place = blocks_[index];
  CoupledBlock block = Part(place, updating_ || update_->ReadsGradient(round_));
  if (updating_) {
    update_->Update(block);
    return;
  }
  RoundSums terms = Zeros(place);
  update_->AddTerms(round_, block, terms);
  terms_[index] = std::move(terms);
}

void CoupledShard::FinishRound(std::vector<ShardSums>* parts) {
  sums_ = Zeros(shard_.place);
  for (size_t i = 0; i < terms_.size(); ++i) {
    for (size_t sum = 0; sum < extents_.size(); ++sum) {
      const int64_t begin = ExtentRangeOf(blocks_[i], extents_[sum], shape_).begin;
      const std::vector<CompensatedSum>& terms = terms_[i][sum];
      for (size_t j = 0; j < terms.size(); ++j) {
        sums_[sum][begin + j] = Sum(sums_[sum][begin + j], terms[j]);
      }
    }
  }
  terms_.clear();
  for (size_t sum = 0; sum < extents_.size(); ++sum) {
    if (blocks_.empty() || !HasOtherTerms(extents_[sum], facts_.region, facts_.sizes)) continue;
    parts->push_back({index_, sum, extents_[sum], sums_[sum]});
  }
}

absl::Status CoupledShard::CheckTotals(absl::Span<const ShardSums>* totals) const {
  for (size_t sum = 0; sum < extents_.size(); ++sum) {
    if (blocks_.empty() || !HasOtherTerms(extents_[sum], facts_.region, facts_.sizes)) continue;
    const bool fits = !totals->empty() && totals->front().shard == index_ &&
                      totals->front().sum == sum && totals->front().extent == extents_[sum] &&
                      totals->front().values.size() == sums_[sum].size();
    if (!fits) {
      return absl::InvalidArgumentError(absl::StrCat("totals: expected ", sums_[sum].size(),
                                                     " values per ", ExtentName(extents_[sum]),
                                                     " for sum ", sum, " of shard ", index_));
    }
    totals->remove_prefix(1);
  }
  return absl::OkStatus();
}

void CoupledShard::TakeTotals(absl::Span<const ShardSums>* totals) {
  if (blocks_.empty()) return;
  for (size_t sum = 0; sum < extents_.size(); ++sum) {
    if (!HasOtherTerms(extents_[sum], facts_.region, facts_.sizes)) continue;
    sums_[sum] = totals->front().values;
    totals->remove_prefix(1);
  }
  CoupledBlock shard = Part(shard_.place, false);
  if (!extents_.empty()) update_->TakeTotals(round_, sums_, shard);
}

}  // namespace shardstep
