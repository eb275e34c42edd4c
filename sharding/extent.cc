#include "shardstep/sharding/extent.h"

#include <algorithm>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

constexpr absl::string_view kNames[] = {"element", "row", "column", "matrix", "tensor"};

// Whether dimension `dim` of `dims` is summed over.
bool IsCollapsed(Extent extent, size_t dim, size_t dims) {
  if (extent == Extent::kElement) return false;
  if (extent == Extent::kTensor) return true;
  if (dims < 2) return extent == Extent::kMatrix;
  const bool last = dim == dims - 1;
  const bool last_but_one = dim == dims - 2;
  return (last && extent != Extent::kColumn) || (last_but_one && extent != Extent::kRow);
}

}  // namespace

absl::string_view ExtentName(Extent extent) { return kNames[static_cast<size_t>(extent)]; }

absl::StatusOr<Extent> ParseExtent(absl::string_view name) {
  const auto* const found = std::find(std::begin(kNames), std::end(kNames), name);
  if (found != std::end(kNames)) return static_cast<Extent>(found - std::begin(kNames));
  return absl::InvalidArgumentError(
      absl::StrCat("extent \"", name, "\": expected element, row, column, matrix or tensor"));
}

Shape ExtentSizes(Extent extent, absl::Span<const int64_t> sizes) {
  Shape kept = ToShape(sizes);
  for (size_t i = 0; i < kept.size(); ++i) {
    if (IsCollapsed(extent, i, kept.size())) kept[i] = std::min<int64_t>(kept[i], 1);
  }
  return kept;
}

Region ExtentRegion(Extent extent, const Region& region) {
  Region kept{region.offsets, ExtentSizes(extent, region.sizes)};
  for (size_t i = 0; i < kept.offsets.size(); ++i) {
    if (IsCollapsed(extent, i, kept.offsets.size())) kept.offsets[i] = 0;
  }
  return kept;
}

bool IsFirstOfExtent(Extent extent, const Region& region) {
  for (size_t i = 0; i < region.offsets.size(); ++i) {
    if (IsCollapsed(extent, i, region.offsets.size()) && region.offsets[i] != 0) return false;
  }
  return true;
}

}  // namespace shardstep
