// The ways in which the golden tests cut parameters into shards and run them. Plain data.
#ifndef SHARDSTEP_TESTS_GOLDEN_SETUPS_H_
#define SHARDSTEP_TESTS_GOLDEN_SETUPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <ostream>
#include <vector>

#include "shardstep/optim/blocks.h"

namespace shardstep {

// Contiguous copies of a tensor's parts.
using Pieces = std::vector<at::Tensor>;
using Cut = std::function<Pieces(const at::Tensor&)>;

Pieces Whole(const at::Tensor& tensor);

struct Setup {
  const char* name = nullptr;
  Cut cut = Whole;
  int servers = 1;
  int threads = 1;
  bool held = false;  // a snapshot of every version is held while the next one is made
  int64_t block_elements = kBlockElements;
  // Where there is one: after half of the steps the state moves to `later_servers`, cut so. Pieces
  // of the first cut must be flat ranges in order.
  Cut later_cut = nullptr;
  int later_servers = 1;

  const Cut& CutAfter(int step, int steps) const {
    return later_cut && step > steps / 2 ? later_cut : cut;
  }
  int ServersAfter(int step, int steps) const {
    return later_cut && step > steps / 2 ? later_servers : servers;
  }
};

inline void PrintTo(const Setup& setup, std::ostream* os) { *os << setup.name; }

std::vector<Setup> Setups();

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_GOLDEN_SETUPS_H_
