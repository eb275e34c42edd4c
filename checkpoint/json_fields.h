// The members of a JSON object that this program wrote, each read with its type and range.
#ifndef SHARDSTEP_CHECKPOINT_JSON_FIELDS_H_
#define SHARDSTEP_CHECKPOINT_JSON_FIELDS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// Prefixes a message with where it belongs.
absl::Status AtPlace(absl::string_view where, const absl::Status& status);

// Borrows the object. Members that nobody asks for are ignored. Every error is INVALID_ARGUMENT and
// names `where` and the member. Takes time in proportion to the object's size per member.
class JsonFields {
 public:
  // INVALID_ARGUMENT: not an object.
  static absl::StatusOr<JsonFields> Of(const Json& json, std::string where);

  const std::string& where() const { return where_; }

  // Null if the member is missing.
  const Json* Find(const char* name) const;
  absl::StatusOr<const Json*> List(const char* name, size_t max_size) const;
  absl::StatusOr<bool> Bool(const char* name) const;
  absl::StatusOr<std::string> String(const char* name) const;
  absl::StatusOr<uint64_t> Unsigned(const char* name, uint64_t max = UINT64_MAX) const;
  absl::StatusOr<Shape> Sizes(const char* name) const;

  absl::Status Error(const char* name, absl::string_view what) const;

 private:
  JsonFields(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {}
  absl::StatusOr<const Json*> Get(const char* name) const;

  const Json* object_;
  std::string where_;
};

// A list of at most kMaxDims integers that fit int64.
absl::StatusOr<Shape> SizesFromJson(const Json& json);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_JSON_FIELDS_H_
