#include "shardstep/wire/crc32c.h"

#include <isa-l.h>

#include <cstddef>

#include "absl/strings/str_format.h"

namespace shardstep {
namespace {

// A CPU's own prefetching ends with the page: while a piece is summed up, memory this far behind it
// is asked for. What is in no cache is then read half as fast again, what is in one costs little
// more.
constexpr size_t kAhead = 8 << 10;
constexpr size_t kPiece = 2 << 10;
constexpr size_t kCacheLine = 64;

}  // namespace

uint32_t Crc32c(absl::string_view data) { return ExtendCrc32c(0, data); }

uint32_t ExtendCrc32c(uint32_t crc, absl::string_view data) {
  while (!data.empty()) {
    size_t length = data.size();
    if (data.size() > kAhead + kPiece) {
      length = kPiece;
      for (size_t i = 0; i < kPiece; i += kCacheLine) {
        __builtin_prefetch(data.data() + kAhead + i, /*rw=*/0, /*locality=*/2);
      }
    }
    // It takes a pointer to non-const and only reads. It leaves both inversions of CRC32C to us.
    auto* bytes = reinterpret_cast<unsigned char*>(const_cast<char*>(data.data()));
    crc = ~crc32_iscsi(bytes, static_cast<int>(length), ~crc);
    data.remove_prefix(length);
  }
  return crc;
}

std::string Crc32cHex(uint32_t crc) { return absl::StrFormat("%08x", crc); }

}  // namespace shardstep
