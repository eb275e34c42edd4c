// The parameters of a trained network in a file, in the layout of safetensors: eight bytes with the
// length of a JSON header (little-endian), the header, and behind it the values, row-major, one
// parameter after the other. Python reads it with safetensors.torch.load_file.
#ifndef SHARDSTEP_EXAMPLES_DIGITS_PARAMETER_FILE_H_
#define SHARDSTEP_EXAMPLES_DIGITS_PARAMETER_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardstep {

struct SavedParameter {
  std::string name;
  std::vector<int64_t> sizes;
  std::vector<float> values;
};

struct ParameterFile {
  uint64_t version = 0;
  std::vector<SavedParameter> parameters;

  // The system's error, naming `path`, where it cannot be written.
  absl::Status Write(const std::string& path) const;
  // NOT_FOUND: no such file; INVALID_ARGUMENT: not a file that Write made.
  static absl::StatusOr<ParameterFile> Read(const std::string& path);
};

// Whether both hold the same parameters, in order, with the same bits. OK, or FAILED_PRECONDITION
// naming the first difference.
absl::Status CompareBits(const ParameterFile& a, const ParameterFile& b);

}  // namespace shardstep

#endif  // SHARDSTEP_EXAMPLES_DIGITS_PARAMETER_FILE_H_
