#include "shardstep/optim/options/option_value.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace shardstep {
namespace {

// Python writes plain decimals for exponents of ten in [-4, 16), scientific ones outside.
constexpr int kLowestPlainExponent = -4;
constexpr int kLowestLargeExponent = 16;

std::string StringRepr(absl::string_view text) {
  const bool double_quoted =
      text.find('\'') != absl::string_view::npos && text.find('"') == absl::string_view::npos;
  const char quote = double_quoted ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string ListRepr(const OptionValue::List& list) {
  std::string out = "(";
  for (size_t i = 0; i < list.size(); ++i) {
    absl::StrAppend(&out, i == 0 ? "" : ", ", list[i].ToString());
  }
  return out + (list.size() == 1 ? ",)" : ")");
}

// Python's int, of which bool is a subclass.
std::optional<int64_t> AsInteger(const OptionValue& value) {
  if (const auto* boolean = std::get_if<bool>(&value.value())) return *boolean ? 1 : 0;
  if (const auto* integer = std::get_if<int64_t>(&value.value())) return *integer;
  return std::nullopt;
}

}  // namespace

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const std::to_chars_result written =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  std::string scientific(buffer, written.ptr);
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(scientific.c_str() + e + 1);
  if (exponent < kLowestPlainExponent || exponent >= kLowestLargeExponent) return scientific;
  const std::to_chars_result plain =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  std::string out(buffer, plain.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::optional<double> OptionValue::AsNumber() const {
  if (const auto* number = std::get_if<double>(&value_)) return *number;
  if (const std::optional<int64_t> integer = AsInteger(*this)) {
    return static_cast<double>(*integer);
  }
  return std::nullopt;
}

bool OptionValue::IsTrue() const {
  if (const auto* text = std::get_if<std::string>(&value_)) return !text->empty();
  if (const auto* list = std::get_if<List>(&value_)) return !list->empty();
  return AsNumber().value_or(0) != 0;
}

std::string OptionValue::ToString() const {
  if (const auto* boolean = std::get_if<bool>(&value_)) return *boolean ? "True" : "False";
  if (const auto* integer = std::get_if<int64_t>(&value_)) return absl::StrCat(*integer);
  if (const auto* number = std::get_if<double>(&value_)) return FloatRepr(*number);
  if (const auto* text = std::get_if<std::string>(&value_)) return StringRepr(*text);
  if (const auto* list = std::get_if<List>(&value_)) return ListRepr(*list);
  return "None";
}

bool operator==(const OptionValue& a, const OptionValue& b) {
  const std::optional<int64_t> integer_a = AsInteger(a), integer_b = AsInteger(b);
  if (integer_a && integer_b) return *integer_a == *integer_b;
  const std::optional<double> number_a = a.AsNumber(), number_b = b.AsNumber();
  if (number_a && number_b) {
    return *number_a == *number_b || (std::isnan(*number_a) && std::isnan(*number_b));
  }
  return a.value_ == b.value_;
}

OptionMap::OptionMap(std::initializer_list<Entry> entries) {
  for (const Entry& entry : entries) Set(entry.first, entry.second);
}

const OptionValue* OptionMap::Find(absl::string_view name) const {
  for (const Entry& entry : entries_) {
    if (entry.first == name) return &entry.second;
  }
  return nullptr;
}

void OptionMap::Set(absl::string_view name, const OptionValue& value) {
  for (Entry& entry : entries_) {
    if (entry.first == name) {
      entry.second = value;
      return;
    }
  }
  entries_.emplace_back(std::string(name), value);
}

double OptionMap::Number(absl::string_view name) const {
  const OptionValue* value = Find(name);
  const std::optional<double> number = value == nullptr ? std::nullopt : value->AsNumber();
  return number.value_or(std::numeric_limits<double>::quiet_NaN());
}

bool OptionMap::IsTrue(absl::string_view name) const {
  const OptionValue* value = Find(name);
  return value != nullptr && value->IsTrue();
}

bool operator==(const OptionMap& a, const OptionMap& b) {
  if (a.size() != b.size()) return false;
  for (const OptionMap::Entry& entry : a) {
    const OptionValue* other = b.Find(entry.first);
    if (other == nullptr || *other != entry.second) return false;
  }
  return true;
}

}  // namespace shardstep
