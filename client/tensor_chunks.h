// TensorChunks: a tensor in row-major order as blocks of bounded size, each of which lies together.
#ifndef SHARDSTEP_CLIENT_TENSOR_CHUNKS_H_
#define SHARDSTEP_CLIENT_TENSOR_CHUNKS_H_

#include <cstddef>
#include <cstdint>

#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"

namespace shardstep::internal {

// The chunks in their order. A tensor without elements has none; one without dimensions has one.
class TensorChunks {
 public:
  // `sizes` as NumElements accepts them. A chunk has `max_elements` (at least 1) at most.
  TensorChunks(Shape sizes, int64_t max_elements);

  bool done() const { return offset_ >= elements_; }
  // Of the current chunk: where it begins, in elements, and its block.
  int64_t offset() const { return offset_; }
  Region region() const;
  int64_t elements() const { return rows() * inner_; }
  void Next() { offset_ += elements(); }

 private:
  // Of the cut dimension, in the current chunk.
  int64_t rows() const;

  const Shape sizes_;
  int64_t elements_ = 1;
  size_t cut_ = 0;     // the dimension that is cut; those before it have size 1 in a chunk
  int64_t inner_ = 1;  // elements of one row of it
  int64_t most_rows_ = 1;
  int64_t offset_ = 0;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_TENSOR_CHUNKS_H_
