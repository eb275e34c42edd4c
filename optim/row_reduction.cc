#include "shardstep/optim/row_reduction.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/aten_status.h"
#include "shardstep/optim/blocks.h"
#include "shardstep/sharding/status_macros.h"

// Relies on -ffp-contract=off (.bazelrc): every product and every sum is rounded by itself.

namespace shardstep {
namespace {

absl::Status CheckChunk(const RowChunk& chunk, at::ScalarType dtype, const RowShape& shape) {
  if (chunk.rows.scalar_type() != at::kLong || !chunk.rows.is_contiguous() ||
      chunk.elements.scalar_type() != dtype || !chunk.elements.is_contiguous() ||
      chunk.elements.numel() != chunk.rows.numel() * shape.row_elements) {
    return absl::InvalidArgumentError(absl::StrCat("rows of a gradient: expected ",
                                                   shape.row_elements, " contiguous elements of ",
                                                   c10::toString(dtype), " for each"));
  }
  const int64_t* const rows = chunk.rows.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < chunk.rows.numel(); ++i) {
    if (rows[i] >= 0 && rows[i] < shape.rows) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("row ", rows[i], " of a gradient: the shard has ", shape.rows, " rows"));
  }
  return absl::OkStatus();
}

// Calls fn(row, its elements) for each row, in the order pushed.
template <typename Function>
void ForEachRow(const RowContribution& contribution, const RowShape& shape, const Function& fn) {
  for (const RowChunk& chunk : contribution.chunks) {
    const int64_t* const rows = chunk.rows.const_data_ptr<int64_t>();
    const auto* elements = static_cast<const char*>(chunk.elements.const_data_ptr());
    const int64_t row_bytes = shape.row_elements * chunk.elements.element_size();
    for (int64_t i = 0; i < chunk.rows.numel(); ++i) fn(rows[i], elements + i * row_bytes);
  }
}

template <typename T>
void AddTo(T* sum, const T* term, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sum[i] += term[i];
}

template <typename T>
void MultiplyBy(T* values, T factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] *= factor;
}

template <typename T>
void DivideBy(T* values, T divisor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] /= divisor;
}

}  // namespace

absl::StatusOr<RowReduction> RowReduction::Create(std::vector<RowContribution> contributions,
                                                  at::ScalarType dtype, const RowShape& shape,
                                                  const ReductionOptions& options) {
  std::vector<double> weights;
  for (const RowContribution& contribution : contributions) weights.push_back(contribution.weight);
  SHARDSTEP_RETURN_IF_ERROR(CheckReduction(weights, dtype, options));
  for (const RowContribution& contribution : contributions) {
    for (const RowChunk& chunk : contribution.chunks) {
      SHARDSTEP_RETURN_IF_ERROR(CheckChunk(chunk, dtype, shape));
    }
  }
  RowReduction reduction;
  reduction.contributions_ = std::move(contributions);
  reduction.dtype_ = dtype;
  reduction.shape_ = shape;
  reduction.options_ = options;
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] { reduction.Spread(); }));
  return reduction;
}

// A block gets the rows of one range, so that blocks know nothing of each other.
void RowReduction::Spread() {
  int64_t entries = 0;
  for (const RowContribution& contribution : contributions_) {
    for (const RowChunk& chunk : contribution.chunks) entries += chunk.rows.numel();
  }
  if (entries == 0) return;
  const int64_t most =
      std::min(shape_.rows, BlockCount(entries * std::max<int64_t>(shape_.row_elements, 1)));
  const int64_t range = (shape_.rows + most - 1) / most;
  blocks_.resize(static_cast<size_t>((shape_.rows + range - 1) / range));
  for (size_t c = 0; c < contributions_.size(); ++c) {
    ForEachRow(contributions_[c], shape_, [&](int64_t row, const void* elements) {
      blocks_[row / range].entries.push_back({row, c, elements});
    });
  }
}

void RowReduction::RunBlock(size_t index) {
  BlockResult& block = blocks_[index];
  block.status = CatchAten([&] {
    if (dtype_ == at::kFloat) {
      ReduceBlock<float>(&block);
    } else {
      ReduceBlock<double>(&block);
    }
  });
}

template <typename T>
void RowReduction::ReduceBlock(BlockResult* block) const {
  std::vector<Entry>& entries = block->entries;
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.row < b.row; });
  std::vector<size_t> ends;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i + 1 < entries.size() && entries[i + 1].row == entries[i].row) continue;
    block->rows.push_back(entries[i].row);
    ends.push_back(i + 1);
  }
  const int64_t width = shape_.row_elements;
  block->gradient =
      at::empty({static_cast<int64_t>(ends.size()) * width}, at::TensorOptions().dtype(dtype_));
  T* const gradient = block->gradient.mutable_data_ptr<T>();
  std::vector<T> scratch(width);
  size_t begin = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    ReduceRow<T>(absl::MakeConstSpan(entries).subspan(begin, ends[i] - begin), gradient + i * width,
                 scratch.data());
    begin = ends[i];
  }
  block->norm =
      MeasureBlock(absl::MakeConstSpan(gradient, static_cast<size_t>(block->gradient.numel())));
  entries = {};
}

template <typename T>
void RowReduction::ReduceRow(absl::Span<const Entry> entries, T* out, T* scratch) const {
  const int64_t width = shape_.row_elements;
  bool first = true;
  for (size_t i = 0; i < entries.size();) {
    const size_t contribution = entries[i].contribution;
    T* const term = first ? out : scratch;
    std::copy_n(static_cast<const T*>(entries[i].elements), width, term);
    for (++i; i < entries.size() && entries[i].contribution == contribution; ++i) {
      AddTo(term, static_cast<const T*>(entries[i].elements), width);
    }
    const double weight = contributions_[contribution].weight;
    if (weight != 1) MultiplyBy(term, static_cast<T>(weight), width);
    if (!first) AddTo(out, term, width);
    first = false;
  }
  if (options_.divisor != 1) DivideBy(out, static_cast<T>(options_.divisor), width);
  if (options_.grad_scale != 1) MultiplyBy(out, static_cast<T>(1 / options_.grad_scale), width);
}

absl::Status RowReduction::Join(ReducedRows* reduced) {
  int64_t count = 0;
  for (const BlockResult& block : blocks_) count += static_cast<int64_t>(block.rows.size());
  return CatchAten([&] {
    reduced->rows = at::empty({count}, at::TensorOptions().dtype(at::kLong));
    reduced->gradient = at::empty({count, shape_.row_elements}, at::TensorOptions().dtype(dtype_));
    auto* rows = static_cast<char*>(reduced->rows.mutable_data_ptr());
    auto* elements = static_cast<char*>(reduced->gradient.mutable_data_ptr());
    for (BlockResult& block : blocks_) {
      if (block.gradient.numel() > 0) {
        std::memcpy(elements, block.gradient.const_data_ptr(), block.gradient.nbytes());
      }
      elements += block.gradient.nbytes();
      std::memcpy(rows, block.rows.data(), block.rows.size() * sizeof(int64_t));
      rows += block.rows.size() * sizeof(int64_t);
      block.gradient = at::Tensor();
    }
  });
}

absl::StatusOr<ReducedRows> RowReduction::Finish() {
  ReducedRows reduced;
  for (const BlockResult& block : blocks_) {
    SHARDSTEP_RETURN_IF_ERROR(block.status);
    reduced.finite = reduced.finite && block.norm.finite;
    reduced.squares = Sum(reduced.squares, block.norm.squares);
  }
  contributions_.clear();
  SHARDSTEP_RETURN_IF_ERROR(Join(&reduced));
  return reduced;
}

absl::StatusOr<at::Tensor> DenseFromRows(const RowContribution& contribution, at::ScalarType dtype,
                                         const RowShape& shape) {
  SHARDSTEP_RETURN_IF_ERROR(CheckReduction({contribution.weight}, dtype, {}));
  for (const RowChunk& chunk : contribution.chunks) {
    SHARDSTEP_RETURN_IF_ERROR(CheckChunk(chunk, dtype, shape));
  }
  at::Tensor dense;
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] {
    dense = at::zeros({shape.rows * shape.row_elements}, at::TensorOptions().dtype(dtype));
    const auto add = [&](auto* to) {
      using T = std::remove_pointer_t<decltype(to)>;
      ForEachRow(contribution, shape, [&](int64_t row, const void* elements) {
        AddTo(to + row * shape.row_elements, static_cast<const T*>(elements), shape.row_elements);
      });
    };
    if (dtype == at::kFloat) {
      add(dense.mutable_data_ptr<float>());
    } else {
      add(dense.mutable_data_ptr<double>());
    }
  }));
  return dense;
}

}  // namespace shardstep
