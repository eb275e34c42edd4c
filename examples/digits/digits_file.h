// The handwritten digits of data/digits.csv.gz: 8 by 8 pixels and a label each.
#ifndef SHARDSTEP_EXAMPLES_DIGITS_DIGITS_FILE_H_
#define SHARDSTEP_EXAMPLES_DIGITS_DIGITS_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace shardstep {

inline constexpr int64_t kPixels = 64;
inline constexpr int64_t kClasses = 10;

struct Digits {
  std::vector<float> pixels;    // kPixels of each row, from 0 to 1
  std::vector<int64_t> labels;  // 0 to kClasses - 1

  int64_t rows() const { return static_cast<int64_t>(labels.size()); }
};

// Reads a file of lines "pixel,...,pixel,label", gzipped or not; pixels are integers from 0 to 16.
// NOT_FOUND: the file cannot be opened; DATA_LOSS: it cannot be read to its end; INVALID_ARGUMENT:
// no rows, or another line, which is named.
absl::StatusOr<Digits> ReadDigits(const std::string& path);

}  // namespace shardstep

#endif  // SHARDSTEP_EXAMPLES_DIGITS_DIGITS_FILE_H_
