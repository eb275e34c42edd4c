#include "shardstep/wire/optimizer_definition.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr size_t kMaxIdentifierBytes = 128;

// A difference in words, or nothing.
using Difference = std::optional<std::string>;

template <typename A, typename B>
Difference Differs(absl::string_view what, const A& existing, const B& proposed) {
  return absl::StrCat(what, " ", existing, ", got ", proposed);
}

std::string Quote(absl::string_view name) { return absl::StrCat("\"", name, "\""); }

Difference CompareParameters(const OptimizerDefinition& existing,
                             const OptimizerDefinition& proposed) {
  const size_t common = std::min(existing.parameters.size(), proposed.parameters.size());
  for (size_t i = 0; i < common; ++i) {
    const ParameterShape& a = existing.parameters[i];
    const ParameterShape& b = proposed.parameters[i];
    const std::string which = absl::StrCat("parameter ", i, " ", Quote(a.name), ":");
    if (a.name != b.name) return absl::StrCat(which, " got ", Quote(b.name));
    if (a.sizes != b.sizes) {
      return Differs(absl::StrCat(which, " shape"), ShapeToString(a.sizes), ShapeToString(b.sizes));
    }
    if (a.dtype != b.dtype) {
      return Differs(absl::StrCat(which, " dtype"), DTypeName(a.dtype), DTypeName(b.dtype));
    }
    const auto tensor = [](bool sharded) { return sharded ? "sharded tensor" : "whole tensor"; };
    if (existing.sharded[i] != proposed.sharded[i]) {
      return Differs(which, tensor(existing.sharded[i]), tensor(proposed.sharded[i]));
    }
  }
  if (existing.parameters.size() == proposed.parameters.size()) return std::nullopt;
  const bool more = proposed.parameters.size() > common;
  return absl::StrCat(existing.parameters.size(), " parameters, got ", proposed.parameters.size(),
                      more ? " (also " : " (without ",
                      Quote((more ? proposed : existing).parameters[common].name), ")");
}

Difference CompareMembers(const OptimizerDefinition& existing,
                          const OptimizerDefinition& proposed) {
  const size_t common = std::min(existing.groups.size(), proposed.groups.size());
  for (size_t g = 0; g < common; ++g) {
    const std::vector<std::string>& a = existing.groups[g].params;
    const std::vector<std::string>& b = proposed.groups[g].params;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      if (a[i] == b[i]) continue;
      return Differs(absl::StrCat("group ", g, ": parameter ", i), Quote(a[i]), Quote(b[i]));
    }
    if (a.size() != b.size()) {
      return absl::StrCat("group ", g, ": ", a.size(), " parameters, got ", b.size());
    }
  }
  if (existing.groups.size() == proposed.groups.size()) return std::nullopt;
  return absl::StrCat(existing.groups.size(), " groups, got ", proposed.groups.size());
}

Difference CompareOptions(absl::string_view where, const OptionMap& existing,
                          const OptionMap& proposed) {
  const auto text = [](const OptionValue* value) {
    return value == nullptr ? "absent" : value->ToString();
  };
  const auto compare = [&](const std::string& name) -> Difference {
    const OptionValue* a = existing.Find(name);
    const OptionValue* b = proposed.Find(name);
    if (a != nullptr && b != nullptr && *a == *b) return std::nullopt;
    return Differs(absl::StrCat(where, ": option ", Quote(name)), text(a), text(b));
  };
  for (const OptionMap* options : {&existing, &proposed}) {
    for (const OptionMap::Entry& entry : *options) {
      if (Difference difference = compare(entry.first)) return difference;
    }
  }
  return std::nullopt;
}

Difference FindDifference(const OptimizerDefinition& existing,
                          const OptimizerDefinition& proposed) {
  if (Difference difference = CompareParameters(existing, proposed)) return difference;
  if (Difference difference = CompareMembers(existing, proposed)) return difference;
  if (existing.kind != proposed.kind) return Differs("kind", existing.kind, proposed.kind);
  if (Difference difference = CompareOptions("defaults", existing.defaults, proposed.defaults)) {
    return difference;
  }
  for (size_t g = 0; g < existing.groups.size(); ++g) {
    if (Difference difference = CompareOptions(
            absl::StrCat("group ", g), existing.groups[g].options, proposed.groups[g].options)) {
      return difference;
    }
  }
  if (existing.mode == proposed.mode) return std::nullopt;
  return Differs("mode", ToString(existing.mode), ToString(proposed.mode));
}

}  // namespace

std::string ToString(const Mode& mode) {
  if (const auto* synchronous = std::get_if<Synchronous>(&mode)) {
    return absl::StrCat("synchronous with ", synchronous->trainers,
                        synchronous->trainers == 1 ? " trainer" : " trainers");
  }
  return absl::StrCat("asynchronous with max_staleness ",
                      std::get<Asynchronous>(mode).max_staleness);
}

absl::Status ValidateIdentifier(absl::string_view what, absl::string_view name) {
  const bool characters = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (!name.empty() && name.size() <= kMaxIdentifierBytes && characters && name[0] != '.') {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, " name \"", absl::CHexEscape(name.substr(0, kMaxIdentifierBytes)),
                   "\": expected 1 to ", kMaxIdentifierBytes,
                   " letters, digits, dots, underscores and hyphens, not beginning with a dot"));
}

absl::Status ValidateOptimizerName(absl::string_view name) {
  return ValidateIdentifier("optimizer", name);
}

absl::Status FirstDifference(const OptimizerDefinition& existing,
                             const OptimizerDefinition& proposed) {
  const Difference difference = FindDifference(existing, proposed);
  if (!difference.has_value()) return absl::OkStatus();
  v1::ErrorDetail detail;
  detail.set_reason(v1::DEFINITION_DIFFERS);
  detail.set_optimizer(existing.name);
  detail.set_server_rank(-1);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("optimizer ", Quote(existing.name),
                                " exists with a different definition: ", *difference),
                   detail);
}

}  // namespace shardstep
