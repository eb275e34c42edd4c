#include "shardstep/checkpoint/reader.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/chunk_reader.h"
#include "shardstep/checkpoint/directory.h"
#include "shardstep/checkpoint/json_fields.h"
#include "shardstep/checkpoint/names.h"
#include "shardstep/checkpoint/scatter.h"
#include "shardstep/checkpoint/shard_files.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

std::string Named(absl::string_view key) {
  return absl::StrCat("tensor \"", absl::CHexEscape(key), "\"");
}

// Whether `part` lies inside `whole`: as many dimensions, no negative number.
bool Contains(const Region& whole, const Region& part) {
  const size_t dims = whole.sizes.size();
  if (part.sizes.size() != dims || part.offsets.size() != dims) return false;
  for (size_t d = 0; d < dims; ++d) {
    const int64_t offset = part.offsets[d] - whole.offsets[d];
    if (part.offsets[d] < 0 || part.sizes[d] < 0 || offset < 0 || offset > whole.sizes[d] ||
        part.sizes[d] > whole.sizes[d] - offset) {
      return false;
    }
  }
  return true;
}

// Where the chunks of a file lie in their tensors, by key.
absl::StatusOr<absl::flat_hash_map<std::string, Shape>> SavedOffsets(
    const SafetensorsHeader& header) {
  const auto text = header.metadata.find(kShardingInfoKey);
  if (text == header.metadata.end()) {
    return absl::DataLossError(absl::StrCat("header: has no \"", kShardingInfoKey, "\""));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const Json json,
                             ParseStrictJson(text->second, kMaxSafetensorsHeaderBytes));
  if (!json.is_object()) return absl::DataLossError("header: sharding info is not an object");
  absl::flat_hash_map<std::string, Shape> offsets;
  for (const auto& [key, value] : json.items()) {
    SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, Named(key)));
    SHARDSTEP_ASSIGN_OR_RETURN(Shape saved, fields.Sizes("saved_offsets"));
    offsets.emplace(key, std::move(saved));
  }
  return offsets;
}

// What a key must be, by the manifest.
absl::StatusOr<StoredTensor> ExpectedTensor(
    absl::string_view key, const Manifest& manifest,
    const absl::flat_hash_map<absl::string_view, const ParameterShape*>& parameters) {
  SHARDSTEP_ASSIGN_OR_RETURN(const TensorKey parts, ParseKey(key));
  const auto found = parameters.find(parts.parameter);
  if (found == parameters.end()) return absl::DataLossError("is of no parameter");
  const ParameterShape& parameter = *found->second;
  if (parts.state.empty()) return StoredTensor{parameter.dtype, parameter.sizes, {}};
  for (const StateSpec& state : manifest.states) {
    if (state.name != parts.state) continue;
    if (state.kind == StateSpec::Kind::kScalar) return StoredTensor{state.dtype, {}, {}};
    return StoredTensor{
        MasterDType(parameter.dtype), ExtentSizes(state.extent, parameter.sizes), {}};
  }
  return absl::DataLossError("is none of the optimizer's states");
}

absl::Status CheckTensor(const StoredTensor& tensor, const StoredTensor& expected) {
  if (tensor.dtype != expected.dtype) {
    return absl::DataLossError(
        absl::StrCat("dtype ", DTypeName(tensor.dtype), ", expected ", DTypeName(expected.dtype)));
  }
  std::vector<Region> regions;
  for (const StoredChunk& chunk : tensor.chunks) regions.push_back(chunk.region);
  const Region whole = {Shape(expected.sizes.size(), 0), expected.sizes};
  if (Covers(regions, whole)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("its ", regions.size(), " chunks do not cover its shape ",
                                          ShapeToString(expected.sizes), " exactly"));
}

}  // namespace

absl::StatusOr<CheckpointReader> CheckpointReader::Open(FileSystem* files, const std::string& root,
                                                        absl::string_view optimizer,
                                                        absl::string_view id) {
  const CheckpointRoot checkpoints(files, root);
  SHARDSTEP_ASSIGN_OR_RETURN(Manifest manifest, checkpoints.ReadManifest(optimizer, id));
  CheckpointReader reader(files, checkpoints.Directory(optimizer, id), std::move(manifest));
  for (size_t file = 0; file < reader.manifest_.files.size(); ++file) {
    SHARDSTEP_RETURN_IF_ERROR(reader.AddFile(file));
  }
  SHARDSTEP_RETURN_IF_ERROR(reader.CheckTensors());
  return reader;
}

absl::Status CheckpointReader::AddFile(size_t file) {
  const FileRecord& record = manifest_.files[file];
  SHARDSTEP_ASSIGN_OR_RETURN(const ChunkReader chunks,
                             ChunkReader::Open(files_, directory_, record));
  SHARDSTEP_ASSIGN_OR_RETURN(const SafetensorsHeader header, chunks.ReadHeader());
  const auto add = [&]() -> absl::Status {
    SHARDSTEP_ASSIGN_OR_RETURN(const auto offsets, SavedOffsets(header));
    for (const SafetensorsEntry& entry : header.entries) {
      const auto found = offsets.find(entry.name);
      if (found == offsets.end() || found->second.size() != entry.sizes.size()) {
        return absl::DataLossError(
            absl::StrCat(Named(entry.name), ": has no saved offsets that fit its shape"));
      }
      const StoredChunk chunk = {
          file, {found->second, entry.sizes}, header.data_begin + entry.begin};
      const ShardMetadata place = {found->second, entry.sizes, {}};
      SHARDSTEP_RETURN_IF_ERROR(ValidateShardMetadata(place));
      StoredTensor& tensor = tensors_[entry.name];
      if (!tensor.chunks.empty() && tensor.dtype != entry.dtype) {
        return absl::DataLossError(absl::StrCat(Named(entry.name), ": dtype ",
                                                DTypeName(entry.dtype), ", in another file ",
                                                DTypeName(tensor.dtype)));
      }
      tensor.dtype = entry.dtype;
      tensor.chunks.push_back(chunk);
    }
    return absl::OkStatus();
  };
  const absl::Status added = add();
  if (added.ok()) return added;
  return absl::DataLossError(
      absl::StrCat("\"", JoinPath(directory_, record.name), "\": ", added.message()));
}

absl::Status CheckpointReader::CheckTensors() {
  absl::flat_hash_map<absl::string_view, const ParameterShape*> parameters;
  for (const ParameterShape& parameter : manifest_.definition.parameters) {
    parameters.emplace(parameter.name, &parameter);
    std::vector<std::string> needed = {ParameterKey(parameter.name)};
    if (HasMaster(parameter.dtype)) needed.push_back(StateKey(parameter.name, kMasterState));
    for (const std::string& key : needed) {
      if (tensors_.count(key) != 0) continue;
      return absl::DataLossError(absl::StrCat("\"", directory_, "\": no file has ", Named(key)));
    }
  }
  for (auto& [key, tensor] : tensors_) {
    const absl::StatusOr<StoredTensor> expected = ExpectedTensor(key, manifest_, parameters);
    const absl::Status checked = expected.ok() ? CheckTensor(tensor, *expected) : expected.status();
    if (!checked.ok()) {
      return absl::DataLossError(
          absl::StrCat("\"", directory_, "\": ", Named(key), ": ", checked.message()));
    }
    tensor.sizes = expected->sizes;
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::Read(absl::Span<const Target> targets,
                                    absl::FunctionRef<void(int64_t)> progress) const {
  std::map<absl::string_view, std::vector<const Target*>> by_key;
  for (const Target& target : targets) {
    const auto tensor = tensors_.find(target.key);
    if (tensor == tensors_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Named(target.key), ": not in checkpoint \"", manifest_.id, "\""));
    }
    const Shape& sizes = tensor->second.sizes;
    const Region whole = {Shape(sizes.size(), 0), sizes};
    const Region& part = target.part;
    if (!Contains(whole, part)) {
      return absl::InvalidArgumentError(
          absl::StrCat(Named(target.key), ": part ", ShapeToString(part.sizes), " at ",
                       ShapeToString(part.offsets), " of shape ", ShapeToString(sizes)));
    }
    by_key[target.key].push_back(&target);
  }

  std::vector<std::vector<Piece>> by_file(manifest_.files.size());
  for (const auto& [key, wanted] : by_key) {
    const StoredTensor& tensor = tensors_.find(std::string(key))->second;
    std::vector<Region> from;
    for (const StoredChunk& chunk : tensor.chunks) from.push_back(chunk.region);
    std::vector<Region> to;
    for (const Target* target : wanted) to.push_back(target->part);
    for (Overlap& overlap : FindOverlaps(from, to)) {
      const StoredChunk& chunk = tensor.chunks[overlap.from];
      const Target& target = *wanted[overlap.to];
      by_file[chunk.file].push_back({chunk.region, chunk.offset, ItemSize(tensor.dtype),
                                     target.part, target.out, std::move(overlap.part)});
    }
  }
  for (size_t file = 0; file < by_file.size(); ++file) {
    if (by_file[file].empty()) continue;
    SHARDSTEP_ASSIGN_OR_RETURN(const ChunkReader chunks,
                               ChunkReader::Open(files_, directory_, manifest_.files[file]));
    SHARDSTEP_RETURN_IF_ERROR(Scatter(chunks, std::move(by_file[file]), progress));
  }
  return absl::OkStatus();
}

}  // namespace shardstep
