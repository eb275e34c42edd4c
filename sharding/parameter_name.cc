#include "shardstep/sharding/parameter_name.h"

#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

// The length of the valid UTF-8 sequence that `text` begins with, and its code point; 0 if none.
size_t DecodeUtf8(absl::string_view text, uint32_t* code_point) {
  const uint8_t lead = text[0];
  const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (length == 0 || lead > 0xF4 || text.size() < length) return 0;
  uint32_t value = length == 1 ? lead : lead & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    const uint8_t next = text[i];
    if ((next & 0xC0) != 0x80) return 0;
    value = value << 6 | (next & 0x3F);
  }
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (overlong || surrogate || value > 0x10FFFF) return 0;
  *code_point = value;
  return length;
}

}  // namespace

absl::Status ValidateName(absl::string_view parameter_name) {
  if (parameter_name.empty()) return absl::InvalidArgumentError("parameter name is empty");
  if (parameter_name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter name \"", absl::CHexEscape(parameter_name.substr(0, 64)), "...\" has ",
        parameter_name.size(), " bytes, expected at most ", kMaxNameBytes));
  }
  for (absl::string_view rest = parameter_name; !rest.empty();) {
    uint32_t code_point = 0;
    const size_t length = DecodeUtf8(rest, &code_point);
    const bool control = code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0);
    if (length == 0 || control) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter name \"", absl::CHexEscape(parameter_name),
                       "\": ", length == 0 ? "invalid UTF-8" : "control character", " at byte ",
                       rest.data() - parameter_name.data()));
    }
    rest.remove_prefix(length);
  }
  return absl::OkStatus();
}

}  // namespace shardstep
