// Taking parts of tensors out of one file of a checkpoint, in one pass over it.
#ifndef SHARDSTEP_CHECKPOINT_SCATTER_H_
#define SHARDSTEP_CHECKPOINT_SCATTER_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "shardstep/checkpoint/chunk_reader.h"
#include "shardstep/sharding/region.h"

namespace shardstep {

// `part`, which is not empty, out of a block that the file holds, into a block in memory. Both
// blocks hold the part, and are in row-major order.
struct Piece {
  Region stored;
  int64_t offset = 0;     // of the stored block's first byte in the file
  int64_t item_size = 0;  // bytes of an element
  Region wanted;
  char* out = nullptr;  // the wanted block's first byte
  Region part;
};

// Copies every piece. Reads only the chunks of the file that hold something of one, in the file's
// order, each verified before any byte of it is used. `progress` receives bytes read since its last
// call. Errors as ChunkReader::Read; the blocks then hold anything.
absl::Status Scatter(const ChunkReader& file, std::vector<Piece> pieces,
                     absl::FunctionRef<void(int64_t bytes)> progress);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_SCATTER_H_
