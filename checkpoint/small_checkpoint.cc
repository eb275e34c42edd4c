#include "shardstep/checkpoint/small_checkpoint.h"

#include <random>
#include <utility>

#include "absl/status/statusor.h"
#include "shardstep/checkpoint/directory.h"
#include "shardstep/checkpoint/option_json.h"
#include "shardstep/checkpoint/shard_files.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

const std::vector<StateSpec>& States() {
  static const auto* const states = new std::vector<StateSpec>{
      StateSpec::Scalar("step"), StateSpec::Tensor("exp_avg"), StateSpec::Tensor("exp_avg_sq"),
      StateSpec::Tensor("row_var", Extent::kRow), StateSpec::Tensor("col_var", Extent::kColumn)};
  return *states;
}

std::string RandomBytes(int64_t size, std::mt19937* random) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>((*random)());
  return bytes;
}

// The tensors of a file, with the memory that they borrow.
struct FileContent {
  std::vector<ShardTensor> tensors;
  std::vector<std::string> memory;
};

FileContent ContentOf(const SmallModel& model, const PlannedFile& file) {
  FileContent content;
  const auto add = [&](const std::string& key, DType dtype, const Shape& sizes,
                       const Region& part) {
    content.memory.push_back(SliceOf(model.tensors.at(key), sizes, ItemSize(dtype), part));
    content.tensors.push_back({key, dtype, ToShape(part.sizes), ToShape(part.offsets), {}});
  };
  for (const size_t shard : file.shards) {
    const ParameterShape& parameter = model.parameters[model.plan.shards[shard].parameter];
    const Region region = RegionOf(model.plan.shards[shard].metadata);
    add(ParameterKey(parameter.name), parameter.dtype, parameter.sizes, region);
    for (const StateSpec& state : States()) {
      if (state.kind == StateSpec::Kind::kScalar) continue;
      const Region part = ExtentRegion(state.extent, region);
      if (!IsEmpty(part) && !IsFirstOfExtent(state.extent, region)) continue;
      add(StateKey(parameter.name, state.name), parameter.dtype,
          ExtentSizes(state.extent, parameter.sizes), part);
    }
  }
  for (const int parameter : file.scalars) {
    const std::string& name = model.parameters[parameter].name;
    for (const StateSpec& state : States()) {
      if (state.kind == StateSpec::Kind::kScalar)
        add(StateKey(name, state.name), state.dtype, {}, {});
    }
  }
  for (size_t i = 0; i < content.tensors.size(); ++i) content.tensors[i].bytes = content.memory[i];
  return content;
}

}  // namespace

SmallModel MakeSmallModel(std::vector<ParameterShape> parameters, int servers, int seed) {
  SmallModel model;
  model.parameters = std::move(parameters);
  model.servers = servers;
  model.plan = MakePlan(model.parameters, servers, {/*whole_below_bytes=*/16}).value();
  std::mt19937 random(seed);
  for (const ParameterShape& parameter : model.parameters) {
    const int64_t bytes = NumBytes(parameter.sizes, parameter.dtype).value();
    model.tensors[ParameterKey(parameter.name)] = RandomBytes(bytes, &random);
    for (const StateSpec& state : States()) {
      const bool scalar = state.kind == StateSpec::Kind::kScalar;
      const Shape sizes = scalar ? Shape() : ExtentSizes(state.extent, parameter.sizes);
      model.tensors[StateKey(parameter.name, state.name)] =
          RandomBytes(NumBytes(sizes, scalar ? state.dtype : parameter.dtype).value(), &random);
    }
  }
  return model;
}

SmallModel TwoServerModel() {
  const Placement first = {0, "cpu"};
  const Placement second = {1, "cpu"};
  return MakeSmallModel({{"fc1.weight", DType::kFloat32, {5, 3}, Chunk{0, {first, second, first}}},
                         {"fc1.bias", DType::kFloat64, {3}, Whole{1}}},
                        2, /*seed=*/1);
}

std::string SliceOf(absl::string_view tensor, const Shape& sizes, int64_t item_size,
                    const Region& part) {
  std::string slice(ElementCount(part.sizes) * item_size, '\0');
  const Region whole = {Shape(sizes.size(), 0), sizes};
  ForEachRun(part, whole, part, [&](int64_t from, int64_t to, int64_t count) {
    const absl::string_view run = tensor.substr(from * item_size, count * item_size);
    run.copy(&slice[to * item_size], run.size());
  });
  return slice;
}

Manifest MakeManifest(const SmallModel& model, const std::string& id) {
  ParamGroup group;
  group.options = CompleteOptions("AdamW", {{"lr", 0.01}}).value();
  for (const ParameterShape& parameter : model.parameters) group.params.push_back(parameter.name);
  Manifest manifest;
  manifest.optimizer = "digits";
  manifest.id = id;
  manifest.version = 7;
  manifest.lineage = 5;
  manifest.lineage_ordinal = 1;
  manifest.parent_lineage = 3;
  manifest.numeric_fingerprint = 0xfedcba98;
  manifest.definition.name = manifest.optimizer;
  manifest.definition.kind = "AdamW";
  manifest.definition.defaults = CompleteOptions("AdamW", {}).value();
  manifest.definition.groups = {group};
  manifest.definition.parameters = model.parameters;
  manifest.definition.sharded.assign(model.parameters.size(), false);
  manifest.definition.mode = Synchronous(2);
  manifest.groups = {group};
  manifest.states = States();
  manifest.plan = model.plan;
  manifest.trainers = {{0, 11, 7, 7, std::string("\0\xff", 2)}, {1, 12, 6, 7, ""}};
  manifest.last_session = 12;
  return manifest;
}

absl::Status WriteSmallCheckpoint(FileSystem* files, const std::string& root,
                                  const SmallModel& model, Manifest manifest) {
  CheckpointRoot checkpoints(files, root);
  SHARDSTEP_RETURN_IF_ERROR(checkpoints.Begin(manifest.optimizer, manifest.id, "token"));
  const std::string directory = checkpoints.WritingDirectory(manifest.optimizer, manifest.id);
  const std::vector<PlannedFile> planned = PlanFiles(model.plan, model.servers);
  for (size_t i = 0; i < planned.size(); ++i) {
    const FileContent content = ContentOf(model, planned[i]);
    SHARDSTEP_ASSIGN_OR_RETURN(
        FileRecord record,
        WriteShardFile(files, directory, ShardFileName(i, planned.size()), content.tensors,
                       {{kParamGroupsKey, ParamGroupsToJson(manifest.groups)}}, [](int64_t) {}));
    manifest.files.push_back(std::move(record));
  }
  return checkpoints.Finish(manifest.optimizer, manifest.id, SerializeManifest(manifest));
}

}  // namespace shardstep
