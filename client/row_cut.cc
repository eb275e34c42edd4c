#include "shardstep/client/row_cut.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/limits.h"

namespace shardstep::internal {
namespace {

// A region in the dimensions that a row has.
Region WithoutRows(const Region& region) {
  return {Shape(region.offsets.begin() + 1, region.offsets.end()),
          Shape(region.sizes.begin() + 1, region.sizes.end())};
}

template <typename T>
void AddTo(char* sum, const char* term, int64_t bytes) {
  auto* to = reinterpret_cast<T*>(sum);
  const auto* from = reinterpret_cast<const T*>(term);
  for (size_t i = 0; i < bytes / sizeof(T); ++i) to[i] += from[i];
}

// Where a shard's part of a row lies in the row, in bytes.
struct Run {
  int64_t offset = 0;
  int64_t bytes = 0;
};

std::vector<Run> RunsIn(const Region& row, const Region& part, int64_t item) {
  std::vector<Run> runs;
  ForEachRun(part, row, part, [&](int64_t offset, int64_t /*part_offset*/, int64_t count) {
    runs.push_back({offset * item, count * item});
  });
  return runs;
}

// Appends the bytes behind the last piece, if that is where they lie.
void AddPiece(absl::string_view bytes, decltype(OutgoingSlice::pieces)* pieces) {
  if (!pieces->empty() && pieces->back().data() + pieces->back().size() == bytes.data()) {
    pieces->back() = {pieces->back().data(), pieces->back().size() + bytes.size()};
  } else {
    pieces->push_back(bytes);
  }
}

}  // namespace

absl::Status CheckRows(const OptimizerIndex& index, int parameter, const RowGradient& gradient) {
  const ParameterInfo& info = index.parameters()[parameter];
  const auto refuse = [&info](const auto&... words) {
    return absl::InvalidArgumentError(absl::StrCat("parameter \"", info.name, "\": ", words...));
  };
  if (info.sizes.empty()) return refuse("has no dimensions, so no rows");
  if (gradient.values.dtype != info.dtype) {
    return refuse("expected dtype ", DTypeName(info.dtype), ", got ",
                  DTypeName(gradient.values.dtype));
  }
  Shape sizes = info.sizes;
  sizes[0] = static_cast<int64_t>(gradient.rows.size());
  if (gradient.values.sizes != sizes) {
    return refuse("expected rows of shape ", ShapeToString(sizes), ", got ",
                  ShapeToString(gradient.values.sizes));
  }
  if (const absl::Status valid = gradient.values.Validate(); !valid.ok()) {
    return refuse(valid.message());
  }
  for (const int64_t row : gradient.rows) {
    if (row < 0 || row >= info.sizes[0]) {
      return refuse("row ", row, ", the parameter has ", info.sizes[0], " rows");
    }
  }
  const auto [first, end] = index.ShardsOf(parameter);
  for (int shard = first; shard < end; ++shard) {
    const Region part = WithoutRows(RegionOf(index.shard(shard).metadata));
    const int64_t bytes = ElementCount(part.sizes) * ItemSize(info.dtype);
    const int64_t most = kMaxFramePayloadBytes - kRowNumberBytes;
    if (bytes > most) {
      return refuse("rows of ", bytes, " bytes on one server, expected at most ", most,
                    ": push the gradient whole");
    }
  }
  return absl::OkStatus();
}

bool HasTooManyRows(const OptimizerIndex& index, int parameter, const RowGradient& gradient) {
  const auto [first, end] = index.ShardsOf(parameter);
  for (int shard = first; shard < end; ++shard) {
    const ShardMetadata& metadata = index.shard(shard).metadata;
    const int64_t begin = metadata.offsets[0];
    const int64_t size = metadata.sizes[0];
    const auto count = std::count_if(gradient.rows.begin(), gradient.rows.end(), [&](int64_t row) {
      return row >= begin && row - begin < size;
    });
    if (count > size) return true;
  }
  return false;
}

std::shared_ptr<const SummedRows> SumRows(const RowGradient& gradient) {
  auto summed = std::make_shared<SummedRows>();
  summed->values = gradient.values;
  const int64_t row_bytes =
      gradient.values.num_bytes() / static_cast<int64_t>(gradient.rows.size());
  const auto add = gradient.values.dtype == DType::kFloat64 ? AddTo<double> : AddTo<float>;
  absl::flat_hash_map<int64_t, int64_t> places;
  for (const int64_t row : gradient.rows) {
    if (places.try_emplace(row, places.size()).second) summed->rows.push_back(row);
  }
  summed->elements.resize(summed->rows.size() * row_bytes);
  std::vector<bool> begun(summed->rows.size());
  const char* from = static_cast<const char*>(gradient.values.data);
  for (const int64_t row : gradient.rows) {
    const int64_t place = places[row];
    char* const to = summed->elements.data() + place * row_bytes;
    if (begun[place]) {
      add(to, from, row_bytes);
    } else {
      std::memcpy(to, from, row_bytes);
      begun[place] = true;
    }
    from += row_bytes;
  }
  summed->values.data = summed->elements.data();
  summed->values.sizes[0] = static_cast<int64_t>(summed->rows.size());
  return summed;
}

void CutRows(const OptimizerIndex& index, int shard, const RowGradient& gradient,
             std::vector<OutgoingSlice>* out) {
  const Region region = RegionOf(index.shard(shard).metadata);
  const Region row = {Shape(region.sizes.size() - 1, 0),
                      Shape(gradient.values.sizes.begin() + 1, gradient.values.sizes.end())};
  const Region part = WithoutRows(region);
  if (IsEmpty(part)) return;
  const int64_t item = ItemSize(gradient.values.dtype);
  const int64_t row_bytes = ElementCount(row.sizes) * item;
  const std::vector<Run> runs = RunsIn(row, part, item);
  const int64_t unit = static_cast<int64_t>(kRowNumberBytes) + ElementCount(part.sizes) * item;
  const size_t most = std::max<int64_t>(1, static_cast<int64_t>(kDefaultFramePayloadBytes) / unit);
  std::vector<int64_t> numbers;
  decltype(OutgoingSlice::pieces) pieces;
  const auto flush = [&] {
    if (numbers.empty()) return;
    OutgoingSlice slice;
    slice.shard = static_cast<uint32_t>(shard);
    slice.count = numbers.size();
    slice.dtype = gradient.values.dtype;
    slice.rows = true;
    slice.row_elements = static_cast<uint64_t>(ElementCount(part.sizes));
    slice.bytes = numbers.size() * static_cast<size_t>(unit);
    slice.pieces = std::move(pieces);
    GatherShort(absl::string_view(reinterpret_cast<const char*>(numbers.data()),
                                  numbers.size() * sizeof(int64_t)),
                &slice);
    out->push_back(std::move(slice));
    numbers.clear();
    pieces.clear();
  };
  const char* data = static_cast<const char*>(gradient.values.data);
  for (const int64_t number : gradient.rows) {
    if (number >= region.offsets[0] && number - region.offsets[0] < region.sizes[0]) {
      numbers.push_back(number - region.offsets[0]);
      for (const Run& run : runs) {
        AddPiece({data + run.offset, static_cast<size_t>(run.bytes)}, &pieces);
      }
      if (numbers.size() == most) flush();
    }
    data += row_bytes;
  }
  flush();
}

}  // namespace shardstep::internal
