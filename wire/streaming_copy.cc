#include "shardstep/wire/streaming_copy.h"

#include <emmintrin.h>

#include <cstdint>
#include <cstring>

namespace shardstep {
namespace {

// Sanitizers see what memcpy writes, but not streaming stores.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace

void StreamingCopy(void* to, const void* from, size_t bytes) {
  if (kSanitized || bytes < kShortestStreamBytes) {
    std::memcpy(to, from, bytes);
    return;
  }
  constexpr size_t kCacheLine = 64;
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  const size_t head = -reinterpret_cast<uintptr_t>(out) % kCacheLine;  // up to the first line
  std::memcpy(out, in, head);
  const char* const end = in + head + (bytes - head) / kCacheLine * kCacheLine;
  out += head;
  for (in += head; in < end; in += kCacheLine, out += kCacheLine) {
    const auto* vectors = reinterpret_cast<const __m128i*>(in);
    const __m128i first = _mm_loadu_si128(vectors);
    const __m128i second = _mm_loadu_si128(vectors + 1);
    const __m128i third = _mm_loadu_si128(vectors + 2);
    const __m128i fourth = _mm_loadu_si128(vectors + 3);
    auto* line = reinterpret_cast<__m128i*>(out);
    _mm_stream_si128(line, first);
    _mm_stream_si128(line + 1, second);
    _mm_stream_si128(line + 2, third);
    _mm_stream_si128(line + 3, fourth);
  }
  // Locks do not order these stores.
  _mm_sfence();
  std::memcpy(out, in, (bytes - head) % kCacheLine);
}

}  // namespace shardstep
