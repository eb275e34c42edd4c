#include "shardstep/optim/row_update.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

#include "shardstep/optim/scalars.h"

namespace shardstep {
namespace {

// Elements that a tensor of the shard has for each of its rows: fewer than the value where it is
// kept per row.
int64_t ElementsPerRow(const RowWork& work, const at::Tensor& tensor) {
  const int64_t elements = work.flat.value_out.numel();
  return elements == 0 ? 0 : tensor.numel() / (elements / work.row_elements);
}

// Puts what `out` has before the step into its elements of the rows in `elements` of the value.
void CarryOver(const RowWork& work, const StateBlock& state, const at::Scalar& begin,
               const BlockRange& elements) {
  if (elements.length == 0) return;
  const int64_t per_row = ElementsPerRow(work, state.out);
  const BlockRange range = {elements.begin / work.row_elements * per_row,
                            elements.length / work.row_elements * per_row};
  at::Tensor out = state.out.narrow(0, range.begin, range.length);
  if (!state.in.defined()) {
    out.fill_(begin);
  } else if (state.in.const_data_ptr() != state.out.const_data_ptr()) {
    out.copy_(state.in.narrow(0, range.begin, range.length));
  }
}

// Copies rows between a shard and a tensor that has these rows alone.
class RowCopier {
 public:
  RowCopier(const RowWork& work, const BlockRange& rows)
      : work_(work), rows_(work.rows.const_data_ptr<int64_t>() + rows.begin), count_(rows.length) {}

  at::Tensor Gather(const at::Tensor& shard) const {
    const int64_t elements = ElementsPerRow(work_, shard);
    at::Tensor gathered = at::empty({count_ * elements}, shard.options());
    const size_t bytes = elements * shard.element_size();
    const char* const from = static_cast<const char*>(shard.const_data_ptr());
    char* const to = static_cast<char*>(gathered.mutable_data_ptr());
    for (int64_t i = 0; i < count_; ++i) {
      std::memcpy(to + i * bytes, from + rows_[i] * bytes, bytes);
    }
    return gathered;
  }

  void Scatter(const at::Tensor& gathered, const at::Tensor& shard) const {
    const size_t bytes = ElementsPerRow(work_, shard) * shard.element_size();
    const char* const from = static_cast<const char*>(gathered.const_data_ptr());
    char* const to = static_cast<char*>(shard.mutable_data_ptr());
    for (int64_t i = 0; i < count_; ++i) {
      std::memcpy(to + rows_[i] * bytes, from + i * bytes, bytes);
    }
  }

 private:
  const RowWork& work_;
  const int64_t* const rows_;
  const int64_t count_;
};

}  // namespace

std::vector<RowBlock> CutRows(absl::Span<const int64_t> rows, int64_t row_elements,
                              int64_t elements, bool in_place, int64_t block_elements) {
  std::vector<RowBlock> blocks;
  const int64_t block_rows =
      std::max<int64_t>(1, block_elements / std::max<int64_t>(1, row_elements));
  const int64_t count = static_cast<int64_t>(rows.size());
  if (in_place) {
    for (int64_t first = 0; first < count; first += block_rows) {
      blocks.push_back({{0, 0}, {first, std::min(block_rows, count - first)}});
    }
    return blocks;
  }
  int64_t first = 0;
  for (int64_t begin = 0; begin < elements; begin += block_rows * row_elements) {
    const int64_t length = std::min(block_rows * row_elements, elements - begin);
    int64_t end = first;
    while (end < count && rows[end] * row_elements < begin + length) ++end;
    blocks.push_back({{begin, length}, {first, end - first}});
    first = end;
  }
  return blocks;
}

void UpdateRows(const RowWork& work, const RowBlock& block, const BlockUpdate& update,
                const std::optional<double>& coefficient) {
  CarryOver(work, {work.flat.value_in, work.flat.value_out}, 0, block.shard);
  for (size_t i = 0; i < work.flat.states.size(); ++i) {
    CarryOver(work, work.flat.states[i], work.begins[i], block.shard);
  }
  const auto [first, count] = block.rows;
  if (count == 0) return;
  const RowCopier copier(work, block.rows);
  Block rows;
  rows.gradient =
      work.flat.gradient.narrow(0, first * work.row_elements, count * work.row_elements);
  if (coefficient.has_value()) {
    rows.gradient = at::mul(rows.gradient, ScalarTensor(*coefficient, rows.gradient.scalar_type()));
  }
  rows.value_in = rows.value_out = copier.Gather(work.flat.value_out);
  for (const StateBlock& state : work.flat.states) {
    const at::Tensor gathered = copier.Gather(state.out);
    rows.states.push_back({gathered, gathered});
  }
  update(rows);
  copier.Scatter(rows.value_out, work.flat.value_out);
  for (size_t i = 0; i < rows.states.size(); ++i) {
    copier.Scatter(rows.states[i].out, work.flat.states[i].out);
  }
}

at::Tensor WithoutRows(const at::Tensor& gradient, const at::Tensor& rows, int64_t elements) {
  const at::Tensor dense = at::zeros({elements}, gradient.options());
  RowWork work;
  work.rows = rows;
  const int64_t count = rows.numel();
  if (count == 0) return dense;
  work.row_elements = gradient.numel() / count;
  work.flat.value_out = dense;
  RowCopier(work, {0, count}).Scatter(gradient, dense);
  return dense;
}

}  // namespace shardstep
