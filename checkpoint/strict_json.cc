#include "shardstep/checkpoint/strict_json.h"

#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

// Walks the text and leaves word of how far it has come: the parser tells its handler no positions.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  Cursor(const char* at, const char** last) : at_(at), last_(last) {}

  char operator*() const {
    *last_ = at_;
    return *at_;
  }
  Cursor& operator++() {
    ++at_;
    return *this;
  }
  Cursor operator++(int) {
    const Cursor before = *this;
    ++at_;
    return before;
  }
  friend bool operator!=(Cursor a, Cursor b) { return a.at_ != b.at_; }

 private:
  const char* at_;
  const char** last_;
};

// Builds the value; refuses what ParseStrictJson refuses.
class Builder {
 public:
  bool null() { return Add(nullptr) != nullptr; }
  bool boolean(bool value) { return Add(value) != nullptr; }
  bool number_integer(int64_t value) { return Add(value) != nullptr; }
  bool number_unsigned(uint64_t value) { return Add(value) != nullptr; }
  bool number_float(double value, const std::string&) { return Add(value) != nullptr; }
  bool string(std::string& value) { return Add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t&) { return false; }

  bool start_object(size_t) { return Open(Json::object()); }
  bool end_object() { return Close(); }
  bool start_array(size_t) { return Open(Json::array()); }
  bool end_array() { return Close(); }

  bool key(std::string& name) {
    if (!open_.back().names.insert(name).second) {
      problem_ = absl::StrCat("name \"", absl::CHexEscape(name.substr(0, 64)),
                              "\" stands twice in one object");
      return false;
    }
    name_ = std::move(name);
    return true;
  }

  template <typename Exception>
  bool parse_error(size_t, const std::string&, const Exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..."
    const absl::string_view text = error.what();
    const size_t words = text.find("] ");
    problem_ = std::string(words == absl::string_view::npos ? text : text.substr(words + 2));
    return false;
  }

  const std::string& problem() const { return problem_; }
  Json Take() { return std::move(root_); }

 private:
  struct Level {
    Json* value;
    absl::flat_hash_set<std::string> names;
  };

  // Stays where it is while the value is open: only the innermost one grows.
  Json* Add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json* parent = open_.back().value;
    if (parent->is_object()) return AddMember(parent, std::move(name_), std::move(value));
    return &parent->get_ref<Json::array_t&>().emplace_back(std::move(value));
  }

  bool Open(Json value) {
    if (open_.size() == kMaxJsonDepth) {
      problem_ = absl::StrCat("nested more than ", kMaxJsonDepth, " deep");
      return false;
    }
    Json* added = Add(std::move(value));
    open_.push_back({added, {}});
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Level> open_;
  std::string name_;
  std::string problem_;
};

}  // namespace

absl::StatusOr<Json> ParseStrictJson(absl::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON of ", text.size(), " bytes, expected at most ", max_bytes));
  }
  // The parser takes one for the end of the text.
  if (const size_t nul = text.find('\0'); nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("byte ", nul, ": a byte of value 0"));
  }
  const char* last = text.data();
  Builder builder;
  const bool parsed = Json::sax_parse(Cursor(text.data(), &last),
                                      Cursor(text.data() + text.size(), &last), &builder);
  if (parsed) return builder.Take();
  return absl::InvalidArgumentError(
      absl::StrCat("byte ", last - text.data(), ": ", builder.problem()));
}

Json* AddMember(Json* object, std::string name, Json value) {
  // An ordered object is a vector of its members.
  std::vector<std::pair<const std::string, Json>>& members = object->get_ref<Json::object_t&>();
  return &members.emplace_back(std::move(name), std::move(value)).second;
}

std::string DumpJson(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

absl::StatusOr<std::string> DumpStrictJson(const Json& json) {
  try {
    return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::strict);
  } catch (const Json::type_error&) {
    return absl::InvalidArgumentError("a name or text is not valid UTF-8");
  }
}

}  // namespace shardstep
