#include "shardstep/checkpoint/manifest.h"

#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/definition_json.h"
#include "shardstep/checkpoint/json_fields.h"
#include "shardstep/checkpoint/names.h"
#include "shardstep/checkpoint/option_json.h"
#include "shardstep/checkpoint/sha256.h"
#include "shardstep/checkpoint/sharding_json.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

constexpr char kFormat[] = "shardstep.checkpoint";
constexpr uint64_t kFormatVersion = 1;
constexpr size_t kMaxFiles = 99'999;  // what a file's name has room for
constexpr size_t kCrcDigits = 8;
constexpr size_t kSha256Digits = 64;
// Around the checksum, which ends the file.
constexpr absl::string_view kBeforeSha256 = ",\n\"sha256\": \"";
constexpr absl::string_view kAfterSha256 = "\"\n}\n";

bool IsLowerHex(absl::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
}

Json FilesToJson(const std::vector<FileRecord>& files) {
  Json json = Json::array();
  for (const FileRecord& file : files) {
    std::string digits;
    for (const uint32_t crc : file.crc32c) digits += Crc32cHex(crc);
    json.push_back({{"name", file.name},
                    {"bytes", file.bytes},
                    {"sha256", file.sha256},
                    {"chunk_bytes", file.chunk_bytes},
                    {"crc32c", std::move(digits)}});
  }
  return json;
}

absl::StatusOr<FileRecord> FileFromJson(const JsonFields& fields) {
  FileRecord file;
  SHARDSTEP_ASSIGN_OR_RETURN(file.name, fields.String("name"));
  SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t bytes, fields.Unsigned("bytes", INT64_MAX));
  SHARDSTEP_ASSIGN_OR_RETURN(file.sha256, fields.String("sha256"));
  if (file.sha256.size() != kSha256Digits || !IsLowerHex(file.sha256)) {
    return fields.Error("sha256", "is not 64 hexadecimal digits");
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t chunk_bytes,
                             fields.Unsigned("chunk_bytes", kMaxChunkBytes));
  if (chunk_bytes < kMinChunkBytes) {
    return fields.Error("chunk_bytes", absl::StrCat("is ", chunk_bytes, ", expected ",
                                                    kMinChunkBytes, " to ", kMaxChunkBytes));
  }
  file.bytes = static_cast<int64_t>(bytes);
  file.chunk_bytes = static_cast<int64_t>(chunk_bytes);
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string digits, fields.String("crc32c"));
  const uint64_t chunks = bytes / chunk_bytes + (bytes % chunk_bytes != 0 ? 1 : 0);
  if (digits.size() / kCrcDigits != chunks || digits.size() % kCrcDigits != 0 ||
      !IsLowerHex(digits)) {
    return fields.Error("crc32c", absl::StrCat("is not ", chunks, " times 8 hexadecimal digits"));
  }
  for (size_t at = 0; at < digits.size(); at += kCrcDigits) {
    file.crc32c.push_back(std::stoul(digits.substr(at, kCrcDigits), nullptr, 16));
  }
  return file;
}

absl::StatusOr<std::vector<FileRecord>> FilesFromJson(const Json& json) {
  std::vector<FileRecord> files;
  for (const Json& entry : json) {
    SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields,
                               JsonFields::Of(entry, absl::StrCat("file ", files.size())));
    SHARDSTEP_ASSIGN_OR_RETURN(FileRecord file, FileFromJson(fields));
    const std::string expected = ShardFileName(files.size(), json.size());
    if (file.name != expected) {
      return fields.Error("name", absl::StrCat("is \"", absl::CHexEscape(file.name.substr(0, 256)),
                                               "\", expected \"", expected, "\""));
    }
    files.push_back(std::move(file));
  }
  return files;
}

Json TrainersToJson(const std::vector<TrainerRecord>& trainers) {
  Json json = Json::array();
  for (const TrainerRecord& trainer : trainers) {
    json.push_back({{"trainer_rank", trainer.trainer_rank},
                    {"session", trainer.session},
                    {"last_call", trainer.last_call},
                    {"last_version", trainer.last_version},
                    {"trainer_state", absl::Base64Escape(trainer.trainer_state)}});
  }
  return json;
}

absl::StatusOr<std::vector<TrainerRecord>> TrainersFromJson(const Json& json) {
  std::vector<TrainerRecord> trainers;
  absl::flat_hash_set<int> ranks;
  for (const Json& entry : json) {
    SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields,
                               JsonFields::Of(entry, absl::StrCat("trainer ", trainers.size())));
    TrainerRecord& trainer = trainers.emplace_back();
    SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t rank, fields.Unsigned("trainer_rank", INT32_MAX));
    trainer.trainer_rank = static_cast<int>(rank);
    if (!ranks.insert(trainer.trainer_rank).second) {
      return fields.Error("trainer_rank", absl::StrCat("is ", rank, " a second time"));
    }
    SHARDSTEP_ASSIGN_OR_RETURN(trainer.session, fields.Unsigned("session"));
    SHARDSTEP_ASSIGN_OR_RETURN(trainer.last_call, fields.Unsigned("last_call"));
    SHARDSTEP_ASSIGN_OR_RETURN(trainer.last_version, fields.Unsigned("last_version"));
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string state, fields.String("trainer_state"));
    if (!absl::Base64Unescape(state, &trainer.trainer_state) ||
        trainer.trainer_state.size() > kMaxTrainerStateBytes) {
      return fields.Error("trainer_state", absl::StrCat("is not base64 of at most ",
                                                        kMaxTrainerStateBytes, " bytes"));
    }
  }
  return trainers;
}

absl::Status ReadFormat(const JsonFields& fields) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string format, fields.String("format"));
  if (format != kFormat) return fields.Error("format", absl::StrCat("is not \"", kFormat, "\""));
  SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t version, fields.Unsigned("format_version"));
  if (version == kFormatVersion) return absl::OkStatus();
  return fields.Error("format_version",
                      absl::StrCat("is ", version, ", this program reads ", kFormatVersion));
}

absl::StatusOr<Manifest> FromJson(const Json& json) {
  SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, "manifest"));
  SHARDSTEP_RETURN_IF_ERROR(ReadFormat(fields));
  Manifest manifest;
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.optimizer, fields.String("optimizer"));
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(manifest.optimizer));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.id, fields.String("id"));
  SHARDSTEP_RETURN_IF_ERROR(ValidateCheckpointId(manifest.id));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.automatic, fields.Bool("automatic"));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.version, fields.Unsigned("version"));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.lineage, fields.Unsigned("lineage"));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.lineage_ordinal, fields.Unsigned("lineage_ordinal"));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.parent_lineage, fields.Unsigned("parent_lineage"));
  SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t fingerprint,
                             fields.Unsigned("numeric_fingerprint", UINT32_MAX));
  manifest.numeric_fingerprint = static_cast<uint32_t>(fingerprint);
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.last_session, fields.Unsigned("last_session"));

  const Json none;
  const auto member = [&](const char* name) -> const Json& {
    const Json* found = fields.Find(name);
    return found == nullptr ? none : *found;
  };
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.definition, DefinitionFromJson(member("definition")));
  if (manifest.definition.name != manifest.optimizer) {
    return fields.Error("definition", absl::StrCat("is of optimizer \"", manifest.definition.name,
                                                   "\", expected \"", manifest.optimizer, "\""));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.created_groups,
                             fields.Unsigned("created_groups", manifest.definition.groups.size()));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.groups,
                             CurrentGroupsFromJson(member("groups"), manifest.definition));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.states, StatesFromJson(member("states")));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.plan,
                             PlanFromJson(member("plan"), manifest.definition.parameters));
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* trainers, fields.List("trainers", kMaxTrainers));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.trainers, TrainersFromJson(*trainers));
  for (const TrainerRecord& trainer : manifest.trainers) {
    if (trainer.session <= manifest.last_session) continue;
    return fields.Error("last_session",
                        absl::StrCat("is ", manifest.last_session, ", trainer rank ",
                                     trainer.trainer_rank, " has session ", trainer.session));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* files, fields.List("files", kMaxFiles));
  SHARDSTEP_ASSIGN_OR_RETURN(manifest.files, FilesFromJson(*files));
  return manifest;
}

absl::Status CheckSha256(absl::string_view text) {
  const size_t tail = kBeforeSha256.size() + kSha256Digits + kAfterSha256.size();
  const size_t begin = text.size() < tail ? 0 : text.size() - tail;
  const absl::string_view end = text.substr(begin);
  if (end.size() != tail || !absl::StartsWith(end, kBeforeSha256) ||
      !absl::EndsWith(end, kAfterSha256)) {
    return absl::DataLossError(absl::StrCat("bytes ", begin, " to ", text.size(),
                                            ": no checksum; the file is damaged or cut short"));
  }
  const absl::string_view body = text.substr(0, begin);
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string actual, Sha256Hex(body));
  const absl::string_view stated = end.substr(kBeforeSha256.size(), kSha256Digits);
  if (stated == actual) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("bytes 0 to ", begin, ": SHA-256 ", actual, ", expected ",
                                          absl::CHexEscape(stated)));
}

}  // namespace

std::string SerializeManifest(const Manifest& manifest) {
  const std::pair<const char*, Json> members[] = {
      {"format", kFormat},
      {"format_version", kFormatVersion},
      {"optimizer", manifest.optimizer},
      {"id", manifest.id},
      {"automatic", manifest.automatic},
      {"version", manifest.version},
      {"lineage", manifest.lineage},
      {"lineage_ordinal", manifest.lineage_ordinal},
      {"parent_lineage", manifest.parent_lineage},
      {"numeric_fingerprint", manifest.numeric_fingerprint},
      {"last_session", manifest.last_session},
      {"trainers", TrainersToJson(manifest.trainers)},
      {"groups", GroupsToJson(manifest.groups)},
      {"states", StatesToJson(manifest.states)},
      {"created_groups", manifest.created_groups},
      {"definition", DefinitionToJson(manifest.definition)},
      {"plan", PlanToJson(manifest.plan)},
      {"files", FilesToJson(manifest.files)},
  };
  std::string text;
  for (const auto& [name, value] : members) {
    absl::StrAppend(&text, text.empty() ? "{" : ",", "\n\"", name, "\": ", DumpJson(value));
  }
  const absl::StatusOr<std::string> sha256 = Sha256Hex(text);
  // Without one the manifest is refused when it is read.
  absl::StrAppend(&text, kBeforeSha256, sha256.ok() ? *sha256 : "", kAfterSha256);
  return text;
}

absl::StatusOr<Manifest> ParseManifest(absl::string_view text, absl::string_view path) {
  const auto parse = [&]() -> absl::StatusOr<Manifest> {
    SHARDSTEP_RETURN_IF_ERROR(CheckSha256(text));
    SHARDSTEP_ASSIGN_OR_RETURN(const Json json, ParseStrictJson(text, kMaxManifestBytes));
    return FromJson(json);
  };
  absl::StatusOr<Manifest> manifest = parse();
  if (!manifest.ok()) return AtPlace(absl::StrCat("\"", path, "\""), manifest.status());
  return manifest;
}

}  // namespace shardstep
