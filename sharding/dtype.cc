#include "shardstep/sharding/dtype.h"

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

struct DTypeInfo {
  absl::string_view name;
  int64_t item_size;
};

// Indexed by the enumerator's number.
constexpr DTypeInfo kDTypes[] = {
    {"invalid", 0}, {"float32", 4},   {"float64", 8},     {"float16", 2}, {"bfloat16", 2},
    {"int8", 1},    {"uint8", 1},     {"int16", 2},       {"int32", 4},   {"int64", 8},
    {"bool", 1},    {"complex64", 8}, {"complex128", 16},
};
constexpr size_t kNumDTypes = sizeof(kDTypes) / sizeof(kDTypes[0]);
static_assert(kNumDTypes == static_cast<size_t>(DType::kComplex128) + 1, "one row for each DType");

const DTypeInfo& InfoOf(DType dtype) {
  const size_t index = static_cast<size_t>(dtype);
  return kDTypes[index < kNumDTypes ? index : 0];
}

}  // namespace

int64_t ItemSize(DType dtype) { return InfoOf(dtype).item_size; }

absl::string_view DTypeName(DType dtype) { return InfoOf(dtype).name; }

DType MasterDType(DType dtype) {
  return dtype == DType::kFloat16 || dtype == DType::kBFloat16 ? DType::kFloat32 : dtype;
}

absl::StatusOr<DType> ParseDType(absl::string_view name) {
  std::string known;
  for (size_t i = 1; i < kNumDTypes; ++i) {
    if (kDTypes[i].name == name) return static_cast<DType>(i);
    absl::StrAppend(&known, i == 1 ? "" : ", ", kDTypes[i].name);
  }
  return absl::InvalidArgumentError(absl::StrCat("dtype \"", absl::CHexEscape(name.substr(0, 64)),
                                                 "\": unknown, expected one of ", known));
}

}  // namespace shardstep
