#include "shardstep/checkpoint/names.h"

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {
namespace {

constexpr char kParameterPrefix[] = "model.";
constexpr char kStatePrefix[] = "optim.state.";

}  // namespace

absl::Status ValidateCheckpointId(absl::string_view id) {
  return ValidateIdentifier("checkpoint", id);
}

std::string DefaultCheckpointId(uint64_t lineage_ordinal, uint64_t version) {
  return absl::StrCat(lineage_ordinal, "-", version);
}

std::string ShardFileName(size_t file, size_t files) {
  return absl::StrFormat("shard-%05d-of-%05d.safetensors", file, files);
}

std::string ParameterKey(absl::string_view parameter) {
  return absl::StrCat(kParameterPrefix, parameter);
}

std::string StateKey(absl::string_view parameter, absl::string_view state) {
  return absl::StrCat(kStatePrefix, parameter, ".", state);
}

absl::StatusOr<TensorKey> ParseKey(absl::string_view key) {
  absl::string_view rest = key;
  if (absl::ConsumePrefix(&rest, kParameterPrefix)) {
    if (!rest.empty()) return TensorKey{rest, {}};
  } else if (absl::ConsumePrefix(&rest, kStatePrefix)) {
    // A parameter's name may hold dots, a state's does not.
    const size_t dot = rest.rfind('.');
    if (dot != absl::string_view::npos && dot > 0 && dot + 1 < rest.size()) {
      return TensorKey{rest.substr(0, dot), rest.substr(dot + 1)};
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tensor \"", absl::CHexEscape(key.substr(0, 600)),
                   "\": expected model.<parameter> or optim.state.<parameter>.<state>"));
}

}  // namespace shardstep
