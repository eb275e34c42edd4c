#include "shardstep/client/state_dict_metadata.h"

#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/option_json.h"
#include "shardstep/checkpoint/shard_files.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep::internal {
namespace {

constexpr char kVersionKey[] = "shardstep.version";
// A JSON object: {"0": base64, ...} by trainer rank.
constexpr char kTrainerStatesKey[] = "shardstep.trainer_states";
constexpr size_t kMaxMetadataBytes = 100'000'000;

absl::Status Refuse(absl::string_view key, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("metadata \"", key, "\": ", why));
}

absl::StatusOr<std::map<int, std::string>> TrainerStatesFromText(const std::string& text) {
  const absl::StatusOr<Json> json = ParseStrictJson(text, kMaxMetadataBytes);
  if (!json.ok()) return Refuse(kTrainerStatesKey, json.status().message());
  if (!json->is_object()) return Refuse(kTrainerStatesKey, "expected an object");
  std::map<int, std::string> states;
  for (const auto& [rank, state] : json->items()) {
    int trainer_rank = 0;
    std::string bytes;
    if (!absl::SimpleAtoi(rank, &trainer_rank) || trainer_rank < 0 ||
        trainer_rank >= kMaxTrainers) {
      return Refuse(kTrainerStatesKey, absl::StrCat("\"", rank, "\" is no trainer rank"));
    }
    if (!state.is_string() || !absl::Base64Unescape(state.get<std::string>(), &bytes) ||
        bytes.size() > kMaxTrainerStateBytes) {
      return Refuse(kTrainerStatesKey,
                    absl::StrCat("the state of trainer rank ", rank, " is no base64 of at most ",
                                 kMaxTrainerStateBytes, " bytes"));
    }
    states[trainer_rank] = std::move(bytes);
  }
  return states;
}

}  // namespace

std::map<std::string, std::string> ToText(const StateDictMetadata& metadata) {
  std::map<std::string, std::string> text = {{"format", "pt"}};
  if (metadata.version != 0) text[kVersionKey] = absl::StrCat(metadata.version);
  if (!metadata.param_groups.empty()) {
    text[kParamGroupsKey] = ParamGroupsToJson(metadata.param_groups);
  }
  if (!metadata.trainer_states.empty()) {
    Json states = Json::object();
    for (const auto& [rank, state] : metadata.trainer_states) {
      AddMember(&states, absl::StrCat(rank), absl::Base64Escape(state));
    }
    text[kTrainerStatesKey] = DumpJson(states);
  }
  return text;
}

absl::StatusOr<StateDictMetadata> MetadataFromText(const std::map<std::string, std::string>& text) {
  StateDictMetadata metadata;
  if (const auto found = text.find(kVersionKey); found != text.end()) {
    if (!absl::SimpleAtoi(found->second, &metadata.version)) {
      return Refuse(kVersionKey, absl::StrCat("expected a number, got \"", found->second, "\""));
    }
  }
  if (const auto found = text.find(kParamGroupsKey); found != text.end()) {
    absl::StatusOr<std::vector<ParamGroup>> groups = ParamGroupsFromJson(found->second);
    if (!groups.ok()) return Refuse(kParamGroupsKey, groups.status().message());
    metadata.param_groups = *std::move(groups);
  }
  if (const auto found = text.find(kTrainerStatesKey); found != text.end()) {
    absl::StatusOr<std::map<int, std::string>> states = TrainerStatesFromText(found->second);
    if (!states.ok()) return states.status();
    metadata.trainer_states = *std::move(states);
  }
  return metadata;
}

}  // namespace shardstep::internal
