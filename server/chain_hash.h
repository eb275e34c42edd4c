// ChainHash: one number for a history: FNV-1a of 64 bits.
#ifndef SHARDSTEP_SERVER_CHAIN_HASH_H_
#define SHARDSTEP_SERVER_CHAIN_HASH_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace shardstep {

inline constexpr uint64_t kEmptyChain = 0xcbf29ce484222325u;

// The number of the history `before` (kEmptyChain: none) with `link` behind it.
inline uint64_t ChainHash(uint64_t before, absl::string_view link) {
  for (const char c : link) before = (before ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return before;
}

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CHAIN_HASH_H_
