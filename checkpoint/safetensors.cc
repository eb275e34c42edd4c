#include "shardstep/checkpoint/safetensors.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

constexpr char kMetadata[] = "__metadata__";
constexpr size_t kAlignment = 8;

struct Code {
  DType dtype;
  absl::string_view code;
};
constexpr Code kCodes[] = {
    {DType::kFloat32, "F32"},   {DType::kFloat64, "F64"},   {DType::kFloat16, "F16"},
    {DType::kBFloat16, "BF16"}, {DType::kInt8, "I8"},       {DType::kUInt8, "U8"},
    {DType::kInt16, "I16"},     {DType::kInt32, "I32"},     {DType::kInt64, "I64"},
    {DType::kBool, "BOOL"},     {DType::kComplex64, "C64"},
};

std::string Named(absl::string_view tensor) {
  return absl::StrCat("tensor \"", absl::CHexEscape(tensor.substr(0, 256)), "\"");
}

absl::Status Bad(absl::string_view tensor, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(Named(tensor), ": ", what));
}

absl::StatusOr<DType> ParseCode(absl::string_view text) {
  std::string known;
  for (const Code& code : kCodes) {
    if (code.code == text) return code.dtype;
    absl::StrAppend(&known, known.empty() ? "" : ", ", code.code);
  }
  return absl::InvalidArgumentError(absl::StrCat("dtype \"", absl::CHexEscape(text.substr(0, 64)),
                                                 "\", expected one of ", known));
}

// The non-negative 64-bit integers of a list of at most `max`.
absl::StatusOr<Shape> Numbers(const Json& object, const char* name, size_t min, size_t max) {
  const auto list = object.find(name);
  if (list == object.end() || !list->is_array() || list->size() < min || list->size() > max) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" is not a list of ",
                                                   min == max ? "" : absl::StrCat(min, " to "), max,
                                                   " numbers"));
  }
  Shape numbers;
  for (const Json& number : *list) {
    if (!number.is_number_unsigned() || number.get<uint64_t>() > uint64_t{INT64_MAX}) {
      return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" holds ",
                                                     DumpJson(number).substr(0, 64),
                                                     ", expected integers from 0 to 2^63 - 1"));
    }
    numbers.push_back(number.get<int64_t>());
  }
  return numbers;
}

absl::StatusOr<SafetensorsEntry> ParseEntry(const std::string& name, const Json& json) {
  const auto parse = [&]() -> absl::StatusOr<SafetensorsEntry> {
    SafetensorsEntry entry;
    entry.name = name;
    if (!json.is_object()) return absl::InvalidArgumentError("not an object");
    const auto dtype = json.find("dtype");
    if (dtype == json.end() || !dtype->is_string()) {
      return absl::InvalidArgumentError("\"dtype\" is not a string");
    }
    SHARDSTEP_ASSIGN_OR_RETURN(entry.dtype, ParseCode(dtype->get_ref<const std::string&>()));
    SHARDSTEP_ASSIGN_OR_RETURN(entry.sizes, Numbers(json, "shape", 0, kMaxDims));
    SHARDSTEP_ASSIGN_OR_RETURN(const Shape offsets, Numbers(json, "data_offsets", 2, 2));
    entry.begin = offsets[0];
    entry.end = offsets[1];
    SHARDSTEP_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(entry.sizes, entry.dtype));
    if (entry.end < entry.begin || entry.end - entry.begin != bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "data_offsets [", entry.begin, ",", entry.end, "], expected ", bytes, " bytes for ",
          DTypeName(entry.dtype), " of shape ", ShapeToString(entry.sizes)));
    }
    return entry;
  };
  absl::StatusOr<SafetensorsEntry> entry = parse();
  return entry.ok() ? std::move(entry) : Bad(name, entry.status().message());
}

absl::Status ParseMetadata(const Json& json, std::map<std::string, std::string>* metadata) {
  if (!json.is_object()) return absl::InvalidArgumentError("\"__metadata__\" is not an object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"__metadata__\": \"", absl::CHexEscape(key.substr(0, 64)), "\" is not a string"));
    }
    metadata->emplace(key, value.get_ref<const std::string&>());
  }
  return absl::OkStatus();
}

// Sorts the entries, which then lie one behind the other and fill `data_bytes`.
absl::Status CheckPlaces(std::vector<SafetensorsEntry>* entries, int64_t data_bytes) {
  std::stable_sort(entries->begin(), entries->end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
                   });
  int64_t end = 0;
  for (const SafetensorsEntry& entry : *entries) {
    if (entry.begin != end) {
      return Bad(entry.name, absl::StrCat("data_offsets [", entry.begin, ",", entry.end, "] ",
                                          entry.begin < end ? "overlap another tensor's, which"
                                                            : "leave a hole: the tensors before",
                                          " end at ", end));
    }
    end = entry.end;
  }
  if (end == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the tensors end at ", end, ", the file has ", data_bytes, " bytes of data"));
}

void PutLength(uint64_t length, char* out) {
  for (int i = 0; i < kSafetensorsLengthBytes; ++i) out[i] = static_cast<char>(length >> (8 * i));
}

}  // namespace

const SafetensorsEntry* SafetensorsHeader::Find(absl::string_view name) const {
  for (const SafetensorsEntry& entry : entries) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

absl::string_view SafetensorsDType(DType dtype) {
  for (const Code& code : kCodes) {
    if (code.dtype == dtype) return code.code;
  }
  return {};
}

absl::StatusOr<int64_t> ParseSafetensorsLength(absl::string_view first_bytes, int64_t file_bytes) {
  if (first_bytes.size() < kSafetensorsLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has ", first_bytes.size(), " bytes, expected at least ", kSafetensorsLengthBytes));
  }
  uint64_t length = 0;
  for (int i = kSafetensorsLengthBytes; i-- > 0;) {
    length = length << 8 | static_cast<unsigned char>(first_bytes[i]);
  }
  const int64_t room = file_bytes - kSafetensorsLengthBytes;
  const uint64_t limit = std::min(room, kMaxSafetensorsHeaderBytes);
  if (length <= limit) return static_cast<int64_t>(length);
  return absl::InvalidArgumentError(
      absl::StrCat("bytes 0 to 8: header of ", length, " bytes, expected at most ", limit,
                   limit == uint64_t{kMaxSafetensorsHeaderBytes} ? "" : ", where the file ends"));
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view header,
                                                         int64_t file_bytes) {
  SHARDSTEP_ASSIGN_OR_RETURN(const int64_t length, ParseSafetensorsLength(header, file_bytes));
  SafetensorsHeader parsed;
  parsed.data_begin = kSafetensorsLengthBytes + length;
  if (static_cast<int64_t>(header.size()) != parsed.data_begin) {
    return absl::InvalidArgumentError(
        absl::StrCat("header: ", header.size(), " bytes, expected ", parsed.data_begin));
  }
  const absl::string_view text = header.substr(kSafetensorsLengthBytes);
  if (text.empty() || text[0] != '{') {
    return absl::InvalidArgumentError("header: byte 8 is not '{'");
  }
  absl::StatusOr<Json> json = ParseStrictJson(text, kMaxSafetensorsHeaderBytes);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("header: JSON: ", json.status().message()));
  }
  for (const auto& [name, value] : json->items()) {
    if (name == kMetadata) {
      SHARDSTEP_RETURN_IF_ERROR(ParseMetadata(value, &parsed.metadata));
    } else {
      SHARDSTEP_ASSIGN_OR_RETURN(SafetensorsEntry entry, ParseEntry(name, value));
      parsed.entries.push_back(std::move(entry));
    }
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckPlaces(&parsed.entries, file_bytes - parsed.data_begin));
  return parsed;
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const ReadableFile& file) {
  SHARDSTEP_ASSIGN_OR_RETURN(const int64_t file_bytes, file.Size());
  const auto read = [&]() -> absl::StatusOr<SafetensorsHeader> {
    std::string header(kSafetensorsLengthBytes, '\0');
    SHARDSTEP_ASSIGN_OR_RETURN(size_t got, file.ReadAt(0, header.data(), header.size()));
    header.resize(got);
    SHARDSTEP_ASSIGN_OR_RETURN(const int64_t length, ParseSafetensorsLength(header, file_bytes));
    header.resize(kSafetensorsLengthBytes + length);
    SHARDSTEP_ASSIGN_OR_RETURN(
        got, file.ReadAt(kSafetensorsLengthBytes, &header[kSafetensorsLengthBytes], length));
    header.resize(kSafetensorsLengthBytes + got);
    return ParseSafetensorsHeader(header, file_bytes);
  };
  absl::StatusOr<SafetensorsHeader> header = read();
  if (header.ok() || header.status().code() != absl::StatusCode::kInvalidArgument) return header;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", file.path(), "\": ", header.status().message()));
}

absl::StatusOr<std::string> LayoutSafetensors(absl::Span<SafetensorsEntry> entries,
                                              const std::map<std::string, std::string>& metadata) {
  Json json = Json::object();
  if (!metadata.empty()) AddMember(&json, kMetadata, metadata);
  absl::flat_hash_set<absl::string_view> names = {kMetadata};
  int64_t end = 0;
  for (SafetensorsEntry& entry : entries) {
    if (!names.insert(entry.name).second) return Bad(entry.name, "the name is taken");
    const absl::string_view code = SafetensorsDType(entry.dtype);
    if (code.empty()) {
      return Bad(entry.name,
                 absl::StrCat("safetensors has no code for dtype ", DTypeName(entry.dtype)));
    }
    absl::StatusOr<int64_t> bytes = NumBytes(entry.sizes, entry.dtype);
    if (!bytes.ok()) return Bad(entry.name, bytes.status().message());
    entry.begin = end;
    if (__builtin_add_overflow(end, *bytes, &end)) {
      return Bad(entry.name, "the file would have more than 2^63 bytes");
    }
    entry.end = end;
    Json* member = AddMember(&json, entry.name, Json::object());
    AddMember(member, "dtype", std::string(code));
    AddMember(member, "shape", entry.sizes);
    AddMember(member, "data_offsets", {entry.begin, entry.end});
  }
  std::string header(kSafetensorsLengthBytes, '\0');
  absl::StatusOr<std::string> text = DumpStrictJson(json);
  if (!text.ok()) return text.status();
  header += *text;
  header.append((kAlignment - header.size() % kAlignment) % kAlignment, ' ');
  const int64_t length = static_cast<int64_t>(header.size()) - kSafetensorsLengthBytes;
  if (length > kMaxSafetensorsHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "header of ", length, " bytes, expected at most ", kMaxSafetensorsHeaderBytes));
  }
  if (end > INT64_MAX - static_cast<int64_t>(header.size())) {
    return absl::InvalidArgumentError("the file would have more than 2^63 bytes");
  }
  PutLength(length, header.data());
  return header;
}

}  // namespace shardstep
