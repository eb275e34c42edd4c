// A value of a torch.optim option, and the ordered map of an optimizer's options. Plain data:
// copied freely, safe to read from several threads, not to be changed while another thread reads.
#ifndef SHARDSTEP_OPTIM_OPTIONS_OPTION_VALUE_H_
#define SHARDSTEP_OPTIM_OPTIONS_OPTION_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"

namespace shardstep {

// What Python's repr() gives for a float: the shortest digits that read back to the same double,
// "0.1", "1e-08", "1e+16", "5.0", "inf", "nan".
std::string FloatRepr(double value);

// One of Python's None, bool, int, float, str, or a tuple of such values.
class OptionValue {
 public:
  using List = std::vector<OptionValue>;
  using Variant = std::variant<std::monostate, bool, int64_t, double, std::string, List>;

  OptionValue() = default;  // None
  // Implicit, so that options read as they do in Python: {{"lr", 0.1}, {"nesterov", true}}.
  OptionValue(bool value) : value_(value) {}                      // NOLINT
  OptionValue(int value) : value_(int64_t{value}) {}              // NOLINT
  OptionValue(int64_t value) : value_(value) {}                   // NOLINT
  OptionValue(double value) : value_(value) {}                    // NOLINT
  OptionValue(const char* value) : value_(std::string(value)) {}  // NOLINT
  OptionValue(std::string value) : value_(std::move(value)) {}    // NOLINT
  OptionValue(List value) : value_(std::move(value)) {}           // NOLINT

  const Variant& value() const { return value_; }

  // The number that Python's arithmetic would use: of an int, a float or a bool; else nothing.
  std::optional<double> AsNumber() const;
  // Python's bool(value): false for None, False, 0, 0.0 and what is empty.
  bool IsTrue() const;
  // Python's repr(value): True, None, 0.001, 'text', (0.9, 0.999).
  std::string ToString() const;

  // Python's ==, where 1 == 1.0 == True, except that a NaN equals a NaN: equal options stay equal.
  friend bool operator==(const OptionValue& a, const OptionValue& b);
  friend bool operator!=(const OptionValue& a, const OptionValue& b) { return !(a == b); }

 private:
  Variant value_;
};

// Options by name, in the order in which they were first set, as in a Python dict. Every lookup is
// linear: an optimizer has about ten options.
class OptionMap {
 public:
  using Entry = std::pair<std::string, OptionValue>;

  OptionMap() = default;
  // A name that stands twice has its last value.
  OptionMap(std::initializer_list<Entry> entries);

  // The value of `name`, or null. Valid until the map changes.
  const OptionValue* Find(absl::string_view name) const;
  // Replaces the value of `name` where it stands, or appends it.
  void Set(absl::string_view name, const OptionValue& value);

  // For maps that passed CheckOptions: the number, or the truth, of an option that such a map has.
  // NaN, or false, where it is missing.
  double Number(absl::string_view name) const;
  bool IsTrue(absl::string_view name) const;

  size_t size() const { return entries_.size(); }
  std::vector<Entry>::const_iterator begin() const { return entries_.begin(); }
  std::vector<Entry>::const_iterator end() const { return entries_.end(); }

  // Equal names with equal values, in any order.
  friend bool operator==(const OptionMap& a, const OptionMap& b);
  friend bool operator!=(const OptionMap& a, const OptionMap& b) { return !(a == b); }

 private:
  std::vector<Entry> entries_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_OPTION_VALUE_H_
