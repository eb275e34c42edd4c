// The header of a safetensors file: 8 bytes, little-endian, that say how long the JSON after them
// is; then the tensors' bytes, "the data". Everything in a file is hostile until checked here.
// Pure functions but for the reading, safe from any thread.
#ifndef SHARDSTEP_CHECKPOINT_SAFETENSORS_H_
#define SHARDSTEP_CHECKPOINT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;  // of the JSON
inline constexpr int64_t kSafetensorsLengthBytes = 8;

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kInvalid;
  Shape sizes;
  // In the data, not in the file: data_begin + begin is the place in the file.
  int64_t begin = 0;
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // by `begin`
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  // bytes before the data

  // Null if there is none. Linear.
  const SafetensorsEntry* Find(absl::string_view name) const;
};

// safetensors' code, "F32"; empty for a dtype that has none (complex128).
absl::string_view SafetensorsDType(DType dtype);

// The JSON's length out of the file's first bytes. INVALID_ARGUMENT: fewer than 8 bytes, longer
// than the limit, or than a file of `file_bytes` can hold.
absl::StatusOr<int64_t> ParseSafetensorsLength(absl::string_view first_bytes, int64_t file_bytes);

// Checks and parses `header`, a file's bytes from its start to the end of the JSON.
// INVALID_ARGUMENT, naming the tensor or the byte: a length that does not fit; JSON that does not
// begin with '{', is deep or repeats a name; an unknown dtype; more than kMaxDims sizes, negative
// ones, or too many elements; offsets that do not fit dtype and sizes, overlap, leave a hole, or do
// not end where the file ends; metadata that is not text.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view header,
                                                         int64_t file_bytes);

// Reads and parses the header of a file; errors begin with its path. Allocates nothing that the
// file's real size does not cover.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const ReadableFile& file);

// Gives each entry its place, in the order given without gaps, and returns the bytes before the
// data, padded with spaces to a multiple of 8. INVALID_ARGUMENT: a name twice or one that is
// "__metadata__"; a dtype without code; sizes that NumBytes refuses; a name or metadata that is not
// UTF-8; a header above the limit.
absl::StatusOr<std::string> LayoutSafetensors(absl::Span<SafetensorsEntry> entries,
                                              const std::map<std::string, std::string>& metadata);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_SAFETENSORS_H_
