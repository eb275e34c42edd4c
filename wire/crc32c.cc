#include "shardstep/wire/crc32c.h"

#include <isa-l.h>

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_format.h"

namespace shardstep {

uint32_t Crc32c(absl::string_view data) { return ExtendCrc32c(0, data); }

uint32_t ExtendCrc32c(uint32_t crc, absl::string_view data) {
  // ISA-L takes the length as an int.
  constexpr size_t kMaxPiece = 1 << 30;
  while (!data.empty()) {
    const size_t length = std::min(data.size(), kMaxPiece);
    // It takes a pointer to non-const and only reads. It leaves both inversions of CRC32C to us.
    auto* bytes = reinterpret_cast<unsigned char*>(const_cast<char*>(data.data()));
    crc = ~crc32_iscsi(bytes, static_cast<int>(length), ~crc);
    data.remove_prefix(length);
  }
  return crc;
}

std::string Crc32cHex(uint32_t crc) { return absl::StrFormat("%08x", crc); }

}  // namespace shardstep
