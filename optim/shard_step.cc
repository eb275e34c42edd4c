#include "shardstep/optim/shard_step.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <utility>

#include "absl/types/span.h"
#include "shardstep/optim/buffers.h"
#include "shardstep/optim/coupled_update.h"
#include "shardstep/optim/flat.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/sharding/extent.h"

namespace shardstep {
namespace {

// Where a step writes what it makes of `current`.
at::Tensor OutputFor(const at::Tensor& current) {
  return IsSoleOwner(current) ? current : at::empty_like(current);
}

bool InPlace(const StateBlock& state) {
  return state.in.defined() && state.in.const_data_ptr() == state.out.const_data_ptr();
}

// The shard's blocks in a step by rows.
std::vector<RowBlock> CutRowWork(const RowWork& work, int64_t block_elements) {
  const bool in_place = InPlace({work.flat.value_in, work.flat.value_out}) &&
                        std::all_of(work.flat.states.begin(), work.flat.states.end(), InPlace);
  return CutRows(absl::MakeConstSpan(work.rows.const_data_ptr<int64_t>(), work.rows.numel()),
                 work.row_elements, work.flat.value_out.numel(), in_place, block_elements);
}

}  // namespace

ShardStep::ShardStep(size_t index, const LocalState::Shard& shard, const Region& region,
                     const ShardGradient& gradient, const at::Tensor& rows,
                     const ParameterStep& step, const StepTerms& terms)
    : shard_(index) {
  if (step.optimizer->AsCoupled() != nullptr && !rows.defined()) {
    BeginCoupled(shard, region, gradient.tensor, step, terms);
  } else {
    BeginElements(shard, region, gradient, rows, step);
  }
}

void ShardStep::BeginElements(const LocalState::Shard& shard, const Region& region,
                              const ShardGradient& gradient, const at::Tensor& rows,
                              const ParameterStep& step) {
  update_ = step.update;
  value_out_ = OutputFor(shard.value);
  any_part_ = step.any_part;
  sum_ = gradient.sum;
  const at::Tensor& tensor = gradient.tensor;
  if (tensor.defined()) {
    flat_.gradient = rows.defined() && !step.by_rows
                         ? WithoutRows(tensor, rows, shard.value.numel())
                         : Flat(tensor);
  }
  flat_.value_in = Flat(shard.value);
  flat_.value_out = Flat(value_out_);
  for (const StateSpec& spec : step.specs) {
    if (spec.kind == StateSpec::Kind::kScalar) continue;
    const at::Tensor* current = FindState(shard.states, spec.name);
    const at::Tensor out =
        current == nullptr
            ? at::empty(StateSizes(shard.value, region, spec.extent), shard.value.options())
            : OutputFor(*current);
    flat_.states.push_back({current == nullptr ? at::Tensor() : Flat(*current), Flat(out)});
    states_out_.push_back({spec.name, out});
  }
  if (step.by_rows) {
    by_rows_ = {rows, tensor.size(1), std::move(flat_), step.begins};
  }
}

void ShardStep::BeginCoupled(const LocalState::Shard& shard, const Region& region,
                             const at::Tensor& gradient, const ParameterStep& step,
                             const StepTerms& terms) {
  Block block;
  block.gradient = gradient;
  block.value_in = shard.value;
  for (const StateSpec& spec : step.specs) {
    if (spec.kind == StateSpec::Kind::kScalar) continue;
    // What is kept per row is made in a round, of whose step nobody knows how it will end.
    const bool in_place = spec.extent == Extent::kElement || terms.coupling.reduce_rounds == 0;
    StateBlock state;
    if (const at::Tensor* current = FindState(shard.states, spec.name)) {
      if (!in_place) state.out = at::empty_like(*current);
      state.in = *current;
    } else {
      state.out = at::empty(StateSizes(shard.value, region, spec.extent), shard.value.options());
      if (const auto initial = step.optimizer->InitialValue(spec.name, *step.options)) {
        const at::Tensor first = in_place ? state.out : at::empty_like(state.out);
        state.in = first.fill_(RoundedScalar(*initial, shard.value.scalar_type()));
      }
    }
    states_out_.push_back({spec.name, state.out});
    block.states.push_back(std::move(state));
  }
  ShardFacts facts = step.facts;
  facts.region = region;
  std::vector<double> scalars = step.scalars_before;
  coupled_ = std::make_unique<CoupledShard>(
      step.optimizer->AsCoupled()->BeginShard(*step.options, facts, absl::MakeSpan(scalars)),
      shard_, facts, step.specs, block, terms.coupling.cut, terms.block_elements,
      terms.coefficient);
}

void ShardStep::LayOut(int round, const LocalState::Shard& shard, const StepTerms& terms,
                       absl::FunctionRef<void(const ShardBlock&)> add) {
  if (coupled_ != nullptr) {
    const bool is_update = round == terms.coupling.reduce_rounds;
    if (is_update) PlaceOutputs(shard);
    const size_t count = is_update ? coupled_->BeginUpdate() : coupled_->BeginRound(round);
    for (size_t block = 0; block < count; ++block) add({{0, 0}, {0, 0}, block});
    return;
  }
  if (by_rows_.rows.defined()) {
    for (const RowBlock& block : CutRowWork(by_rows_, terms.block_elements)) {
      add({block.shard, block.rows});
    }
    return;
  }
  const int64_t elements = flat_.value_in.numel();
  for (int64_t block = 0; block < BlockCount(elements, terms.block_elements); ++block) {
    add({BlockAt(block, elements, terms.block_elements)});
  }
}

void ShardStep::PlaceOutputs(const LocalState::Shard& shard) {
  coupled_->ReleaseInputs();
  Block block;
  value_out_ = OutputFor(shard.value);
  block.value_in = shard.value;
  block.value_out = value_out_;
  for (TensorState& state : states_out_) {
    StateBlock& placed = block.states.emplace_back();
    if (state.tensor.defined()) continue;
    const at::Tensor& current = *FindState(shard.states, state.name);
    state.tensor = OutputFor(current);
    placed = {current, state.tensor};
  }
  coupled_->PlaceOutputs(block);
}

void ShardStep::RunBlock(const ShardBlock& block, const std::optional<double>& coefficient) const {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (coupled_ != nullptr) return coupled_->RunBlock(block.coupled);
  if (by_rows_.rows.defined()) {
    return UpdateRows(by_rows_, {block.range, block.rows}, *update_, coefficient);
  }
  if (sum_ == nullptr) {
    return UpdateRange(block.range, PartOf(flat_.gradient, block.range), coefficient);
  }
  const auto [begin, length] = block.range;
  const int64_t unit = any_part_ ? kPartElements : length;
  const at::Tensor scratch =
      at::empty({std::min(unit, length)}, at::TensorOptions().dtype(sum_->dtype()));
  for (int64_t i = 0; i < BlockCount(length, unit); ++i) {
    BlockRange part = BlockAt(i, length, unit);
    part.begin += begin;
    const at::Tensor gradient = PartOf(scratch, {0, part.length});
    sum_->Write(part, gradient);
    UpdateRange(part, gradient, coefficient);
  }
}

void ShardStep::UpdateRange(const BlockRange& range, const at::Tensor& gradient,
                            const std::optional<double>& coefficient) const {
  Block block;
  block.gradient = gradient;
  block.value_in = PartOf(flat_.value_in, range);
  block.value_out = PartOf(flat_.value_out, range);
  for (const StateBlock& state : flat_.states) {
    block.states.push_back({PartOf(state.in, range), PartOf(state.out, range)});
  }
  block.coefficient = coefficient.value_or(1);
  (*update_)(block);
}

void ShardStep::Finish(LocalState::Shard* shard) {
  shard->value = std::move(value_out_);
  for (TensorState& state : states_out_) PutState(std::move(state), &shard->states);
}

}  // namespace shardstep
