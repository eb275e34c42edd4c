#include "shardstep/tests/golden/setups.h"

#include <algorithm>

namespace shardstep {
namespace {

Pieces Chunk(const at::Tensor& tensor, int64_t dim, int64_t count) {
  if (dim >= tensor.dim()) return Whole(tensor);
  Pieces pieces;
  const int64_t size = tensor.size(dim);
  const int64_t step = std::max<int64_t>((size + count - 1) / count, 1);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = std::min(i * step, size);
    pieces.push_back(tensor.narrow(dim, begin, std::min(step, size - begin)).contiguous().clone());
  }
  return pieces;
}

// Flat pieces of lengths[0], lengths[1], ... elements, over and over.
Pieces Strips(const at::Tensor& tensor, const std::vector<int64_t>& lengths) {
  if (tensor.numel() == 0) return Whole(tensor);
  Pieces pieces;
  const at::Tensor flat = tensor.reshape(-1);
  for (int64_t begin = 0; begin < flat.numel();) {
    const int64_t length = std::min(lengths[pieces.size() % lengths.size()], flat.numel() - begin);
    pieces.push_back(flat.narrow(0, begin, length).clone());
    begin += length;
  }
  return pieces;
}

}  // namespace

Pieces Whole(const at::Tensor& tensor) { return {tensor.contiguous().clone()}; }

std::vector<Setup> Setups() {
  const Cut rows = [](const at::Tensor& t) { return Chunk(t, 0, 3); };
  const Cut thin_rows = [](const at::Tensor& t) { return Chunk(t, 0, 9); };
  const Cut columns = [](const at::Tensor& t) { return Chunk(t, 1, 2); };
  const Cut grid = [](const at::Tensor& t) {
    Pieces pieces;
    for (const at::Tensor& row : Chunk(t, 0, 2)) {
      for (const at::Tensor& block : Chunk(row, 1, 3)) pieces.push_back(block);
    }
    return pieces;
  };
  const Cut odd = [](const at::Tensor& t) { return Strips(t, {1, 3, 7, 11, 2, 17}); };
  const Cut elements = [](const at::Tensor& t) { return Strips(t, {1}); };
  return {{"Whole"},
          {"WholeHeld", Whole, 1, 1, true},
          {"WholeInBlocksOnTwoThreads", Whole, 1, 2, false, 5},
          {"RowsOnTwoServers", rows, 2},
          {"MoreServersThanRows", thin_rows, 9},
          {"ColumnsOnTwoThreads", columns, 1, 2},
          {"GridOnThreeServersHeld", grid, 3, 1, true},
          {"OddPiecesHeldOnTwoThreads", odd, 2, 2, true, 4},
          {"SingleElements", elements, 2},
          {"RowsThenGridOnThreeServers", rows, 2, 1, false, kBlockElements, grid, 3},
          {"OddPiecesThenColumns", odd, 3, 1, false, 4, columns, 2}};
}

}  // namespace shardstep
