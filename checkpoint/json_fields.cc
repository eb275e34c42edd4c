#include "shardstep/checkpoint/json_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

absl::Status AtPlace(absl::string_view where, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(where, ": ", status.message()));
}

absl::StatusOr<JsonFields> JsonFields::Of(const Json& json, std::string where) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": not an object"));
  }
  return JsonFields(json, std::move(where));
}

const Json* JsonFields::Find(const char* name) const {
  const auto found = object_->find(name);
  return found == object_->end() ? nullptr : &*found;
}

absl::StatusOr<const Json*> JsonFields::Get(const char* name) const {
  const Json* found = Find(name);
  if (found == nullptr) return Error(name, "is missing");
  return found;
}

absl::StatusOr<const Json*> JsonFields::List(const char* name, size_t max_size) const {
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* json, Get(name));
  if (!json->is_array()) return Error(name, "is not a list");
  if (json->size() > max_size) {
    return Error(name, absl::StrCat("has ", json->size(), " entries, expected at most ", max_size));
  }
  return json;
}

absl::StatusOr<bool> JsonFields::Bool(const char* name) const {
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* json, Get(name));
  if (!json->is_boolean()) return Error(name, "is neither true nor false");
  return json->get<bool>();
}

absl::StatusOr<std::string> JsonFields::String(const char* name) const {
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* json, Get(name));
  if (!json->is_string()) return Error(name, "is not a string");
  return json->get_ref<const std::string&>();
}

absl::StatusOr<uint64_t> JsonFields::Unsigned(const char* name, uint64_t max) const {
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* json, Get(name));
  if (!json->is_number_unsigned() || json->get<uint64_t>() > max) {
    return Error(name, absl::StrCat("is ", DumpJson(*json).substr(0, 64),
                                    ", expected an integer from 0 to ", max));
  }
  return json->get<uint64_t>();
}

absl::StatusOr<Shape> JsonFields::Sizes(const char* name) const {
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* json, Get(name));
  absl::StatusOr<Shape> sizes = SizesFromJson(*json);
  if (!sizes.ok()) return Error(name, sizes.status().message());
  return sizes;
}

absl::Status JsonFields::Error(const char* name, absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(where_, ": \"", name, "\" ", what));
}

absl::StatusOr<Shape> SizesFromJson(const Json& json) {
  if (!json.is_array() || json.size() > kMaxDims) {
    return absl::InvalidArgumentError(
        absl::StrCat("is not a list of at most ", kMaxDims, " numbers"));
  }
  Shape sizes;
  for (const Json& size : json) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > uint64_t{INT64_MAX}) {
      return absl::InvalidArgumentError(absl::StrCat("holds ", DumpJson(size).substr(0, 64),
                                                     ", expected integers from 0 to 2^63 - 1"));
    }
    sizes.push_back(size.get<int64_t>());
  }
  return sizes;
}

}  // namespace shardstep
