// JSON from files that may be damaged or hostile.
#ifndef SHARDSTEP_CHECKPOINT_STRICT_JSON_H_
#define SHARDSTEP_CHECKPOINT_STRICT_JSON_H_

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardstep {

// Members stay in the order of the text.
using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 64;

// Parses a text of one JSON value. INVALID_ARGUMENT, naming the byte's position (from 0): not JSON
// (NaN and Infinity are not, nor is what is not UTF-8, nor a number beyond a double's range), a
// name twice in one object, nesting deeper than kMaxJsonDepth, more than `max_bytes`. Needs memory
// in proportion to the text; never throws.
absl::StatusOr<Json> ParseStrictJson(absl::string_view text, size_t max_bytes);

// Appends a member to an object without looking for one of that name, which would take time in
// proportion to the object's size.
Json* AddMember(Json* object, std::string name, Json value);

// JSON in one line. What is not UTF-8 is replaced.
std::string DumpJson(const Json& json);

// The same; INVALID_ARGUMENT if something is not UTF-8.
absl::StatusOr<std::string> DumpStrictJson(const Json& json);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_STRICT_JSON_H_
