// Extents: which dimensions of a parameter something is kept or summed per.
//
// A state tensor need not have the parameter's shape: Adafactor keeps one number per row and one
// per column. Such a tensor has the parameter's shape with the other dimensions at 1, and is cut as
// the parameter is. Where a cut goes through a row, each of its shards keeps the row's number; the
// same bits, as they come from sums over all shards. One of them is the first, and speaks for all.
//
// Rows and columns are those of the last two dimensions, as everywhere in PyTorch; what comes
// before counts matrices. A parameter with fewer than two dimensions has one row per element.
//
// Pure functions, safe from any thread.
#ifndef SHARDSTEP_SHARDING_EXTENT_H_
#define SHARDSTEP_SHARDING_EXTENT_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

enum class Extent {
  kElement,  // one number per element: the parameter's own shape
  kRow,      // one per row: the last dimension is 1
  kColumn,   // one per column: the last but one is 1
  kMatrix,   // one per matrix: the last two are 1
  kTensor,   // one in all: every dimension is 1
};

// "element", "row", "column", "matrix", "tensor".
absl::string_view ExtentName(Extent extent);
// INVALID_ARGUMENT: none of these names.
absl::StatusOr<Extent> ParseExtent(absl::string_view name);

// The shape of what is kept per `extent` of a parameter of these sizes. A dimension of size 0 stays
// 0: nothing is kept of a parameter without elements.
Shape ExtentSizes(Extent extent, absl::Span<const int64_t> sizes);

// The part of it that belongs to a region of the parameter.
Region ExtentRegion(Extent extent, const Region& region);

// Whether a region is the first of those that share its part. The first ones of a sharding cover
// what is kept exactly once.
bool IsFirstOfExtent(Extent extent, const Region& region);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_EXTENT_H_
