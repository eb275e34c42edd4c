#include "shardstep/examples/digits/parameter_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLengthBytes = 8;
constexpr char kMetadata[] = "__metadata__";

absl::Status NotOurs(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("\"", path, "\": ", what));
}

// The sizes of a header's entry for `values` floats, or nothing where it does not fit.
bool ReadEntry(const Json& entry, const std::string& body, size_t* end, SavedParameter* parameter) {
  if (!entry.is_object() || entry.value("dtype", Json()) != "F32") return false;
  const Json shape = entry.value("shape", Json());
  const Json offsets = entry.value("data_offsets", Json());
  if (!shape.is_array() || !offsets.is_array() || offsets.size() != 2) return false;
  uint64_t elements = 1;
  for (const Json& size : shape) {
    if (!size.is_number_unsigned()) return false;
    parameter->sizes.push_back(size.get<int64_t>());
    if (__builtin_mul_overflow(elements, size.get<uint64_t>(), &elements)) return false;
  }
  if (elements > (body.size() - *end) / sizeof(float)) return false;
  const size_t begin = *end;
  *end += elements * sizeof(float);
  if (offsets[0] != begin || offsets[1] != *end) return false;
  parameter->values.resize(elements);
  std::memcpy(parameter->values.data(), body.data() + begin, *end - begin);
  return true;
}

}  // namespace

absl::Status ParameterFile::Write(const std::string& path) const {
  Json header;
  header[kMetadata]["version"] = absl::StrCat(version);  // all metadata are strings
  std::string body;
  for (const SavedParameter& parameter : parameters) {
    const size_t begin = body.size();
    body.append(reinterpret_cast<const char*>(parameter.values.data()),
                parameter.values.size() * sizeof(float));
    header[parameter.name] = {
        {"dtype", "F32"}, {"shape", parameter.sizes}, {"data_offsets", {begin, body.size()}}};
  }
  std::string json = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  json.resize((json.size() + kLengthBytes - 1) / kLengthBytes * kLengthBytes, ' ');
  std::string length;
  for (size_t i = 0; i < kLengthBytes; ++i)
    length.push_back(static_cast<char>(json.size() >> (8 * i)));
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << length << json << body;
  file.close();
  if (!file) return absl::ErrnoToStatus(errno, absl::StrCat("\"", path, "\": cannot be written"));
  return absl::OkStatus();
}

absl::StatusOr<ParameterFile> ParameterFile::Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("\"", path, "\": cannot be opened"));
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.size() < kLengthBytes) return NotOurs(path, "too short for a safetensors file");
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i)
    length |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  if (length > bytes.size() - kLengthBytes)
    return NotOurs(path, "its header is longer than the file");
  const Json header =
      Json::parse(bytes.substr(kLengthBytes, length), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return NotOurs(path, "its header is not a JSON object");

  const std::string body = bytes.substr(kLengthBytes + length);
  ParameterFile result;
  size_t end = 0;
  for (const auto& [name, entry] : header.items()) {
    if (name == kMetadata) {
      const Json version = entry.is_object() ? entry.value("version", Json()) : Json();
      if (!version.is_string() || !absl::SimpleAtoi(version.get<std::string>(), &result.version)) {
        return NotOurs(path, "no version in its metadata");
      }
      continue;
    }
    SavedParameter parameter;
    parameter.name = name;
    if (!ReadEntry(entry, body, &end, &parameter)) {
      return NotOurs(path, absl::StrCat("parameter \"", name,
                                        "\" is not float32 values of the file in order"));
    }
    result.parameters.push_back(std::move(parameter));
  }
  if (end != body.size()) return NotOurs(path, "bytes behind the last parameter");
  return result;
}

absl::Status CompareBits(const ParameterFile& a, const ParameterFile& b) {
  if (a.parameters.size() != b.parameters.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat(a.parameters.size(), " parameters against ", b.parameters.size()));
  }
  for (size_t i = 0; i < a.parameters.size(); ++i) {
    const SavedParameter& left = a.parameters[i];
    const SavedParameter& right = b.parameters[i];
    if (left.name != right.name || left.sizes != right.sizes) {
      return absl::FailedPreconditionError(
          absl::StrCat("parameter ", i, ": \"", left.name, "\" [", absl::StrJoin(left.sizes, ","),
                       "] against \"", right.name, "\" [", absl::StrJoin(right.sizes, ","), "]"));
    }
    for (size_t j = 0; j < left.values.size(); ++j) {
      if (std::memcmp(&left.values[j], &right.values[j], sizeof(float)) != 0) {
        return absl::FailedPreconditionError(absl::StrCat("parameter \"", left.name, "\", element ",
                                                          j, ": ", left.values[j], " against ",
                                                          right.values[j]));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace shardstep
