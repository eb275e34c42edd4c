#include "shardstep/examples/digits/state_file.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/safetensors_file.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

std::string Kind(const HostTensor& tensor) {
  return absl::StrCat(DTypeName(tensor.dtype), ShapeToString(tensor.sizes));
}

absl::Status OnlyOneHas(const std::string& name) {
  return absl::FailedPreconditionError(absl::StrCat("only one of both has \"", name, "\""));
}

}  // namespace

absl::StatusOr<NamedTensors> ReadStateFile(const std::string& path) {
  SHARDSTEP_ASSIGN_OR_RETURN(const SafetensorsReader file,
                             SafetensorsReader::Open(PosixFileSystem(), path));
  NamedTensors tensors;
  for (size_t i = 0; i < file.entries().size(); ++i) {
    const SafetensorsEntry& entry = file.entries()[i];
    HostTensor tensor{entry.dtype, entry.sizes, {}};
    tensor.bytes.resize(static_cast<size_t>(entry.end - entry.begin));
    SHARDSTEP_RETURN_IF_ERROR(file.Read(i, 0, tensor.bytes.data(), entry.end - entry.begin));
    tensors.emplace(entry.name, std::move(tensor));
  }
  return tensors;
}

absl::Status CompareBits(const NamedTensors& a, const NamedTensors& b) {
  for (const auto& [name, left] : a) {
    const auto found = b.find(name);
    if (found == b.end()) return OnlyOneHas(name);
    const HostTensor& right = found->second;
    if (left.dtype != right.dtype || left.sizes != right.sizes) {
      return absl::FailedPreconditionError(
          absl::StrCat("\"", name, "\": ", Kind(left), " against ", Kind(right)));
    }
    const auto [at, other] =
        std::mismatch(left.bytes.begin(), left.bytes.end(), right.bytes.begin(), right.bytes.end());
    if (at != left.bytes.end() || other != right.bytes.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("\"", name, "\" differs from byte ", at - left.bytes.begin(), " on"));
    }
  }
  for (const auto& [name, right] : b) {
    if (a.find(name) == a.end()) return OnlyOneHas(name);
  }
  return absl::OkStatus();
}

}  // namespace shardstep
