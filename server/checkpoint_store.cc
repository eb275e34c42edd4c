#include "shardstep/server/checkpoint_store.h"

#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "shardstep/checkpoint/manifest.h"
#include "shardstep/checkpoint/option_json.h"
#include "shardstep/checkpoint/reader.h"
#include "shardstep/checkpoint/shard_files.h"
#include "shardstep/checkpoint/verify.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/server/checkpoint_facts.h"
#include "shardstep/server/device.h"
#include "shardstep/server/layout.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {
namespace {

// The number's bytes in its dtype.
std::string ScalarBytes(double value, DType dtype) {
  std::string bytes;
  const auto store = [&bytes](auto number) {
    bytes.assign(reinterpret_cast<const char*>(&number), sizeof(number));
  };
  switch (dtype) {
    case DType::kFloat32:
      store(static_cast<float>(value));
      break;
    case DType::kInt64:
      store(static_cast<int64_t>(value));
      break;
    default:
      store(value);
  }
  return bytes;
}

double ScalarFrom(const char* bytes, DType dtype) {
  const auto load = [bytes](auto number) {
    std::memcpy(&number, bytes, sizeof(number));
    return static_cast<double>(number);
  };
  switch (dtype) {
    case DType::kFloat32:
      return load(float());
    case DType::kInt64:
      return load(int64_t());
    default:
      return load(double());
  }
}

// What goes into one file, in its order. `scalars` keep the bytes of the scalars.
std::vector<ShardTensor> TensorsOf(const HeldVersion& held, const PlannedFile& file,
                                   std::vector<std::string>* scalars) {
  const Layout& layout = *held.layout;
  std::vector<ShardTensor> tensors;
  for (const size_t shard : file.shards) {
    const size_t local = layout.local_of[shard];
    const LocalState::Shard& state = held.state.shards[local];
    const std::string& name = layout.parameters[layout.local[local].parameter].name;
    const DType declared = layout.local[local].declared;
    const auto add = [&](std::string key, DType dtype, uint32_t tensor, const at::Tensor& values) {
      if (!layout.TensorOf(local, tensor).speaks) return;
      const Region region = layout.TensorRegion(local, tensor);
      tensors.push_back({std::move(key), dtype, ToShape(region.sizes), ToShape(region.offsets),
                         HostBytes(values), /*master=*/true});
    };
    add(ParameterKey(name), declared, 0, state.value);
    for (const TensorState& tensor : state.states) {
      const uint32_t number = layout.FindState(tensor.name);
      add(StateKey(name, tensor.name), layout.TensorOf(local, number).dtype, number, tensor.tensor);
    }
    if (HasMaster(declared)) {
      add(StateKey(name, kMasterState), layout.local[local].dtype, 0, state.value);
    }
  }
  size_t count = 0;
  for (const int parameter : file.scalars) count += held.state.scalars[parameter].size();
  scalars->reserve(count);  // views point into them
  for (const int parameter : file.scalars) {
    for (const ScalarState& scalar : held.state.scalars[parameter]) {
      scalars->push_back(ScalarBytes(scalar.value, scalar.dtype));
      tensors.push_back({StateKey(layout.parameters[parameter].name, scalar.name),
                         scalar.dtype,
                         {},
                         {},
                         scalars->back()});
    }
  }
  return tensors;
}

// Of values and state tensors, as they go into the files.
int64_t BytesToWrite(const HeldVersion& held) {
  int64_t bytes = 0;
  for (size_t local = 0; local < held.state.shards.size(); ++local) {
    const LocalShardInfo& shard = held.layout->local[local];
    bytes += shard.bytes;
    if (HasMaster(shard.declared)) bytes += shard.elements * ItemSize(shard.declared);
    for (const TensorState& state : held.state.shards[local].states) {
      const LocalTensor info = held.layout->TensorOf(local, held.layout->FindState(state.name));
      if (info.speaks) bytes += info.bytes;
    }
  }
  return bytes;
}

// Another kind of optimizer may have a state of the same name and another shape.
absl::Status CheckStored(const CheckpointReader& reader, const std::string& key,
                         const Layout& layout, size_t local, uint32_t tensor) {
  const auto found = reader.tensors().find(key);
  if (found == reader.tensors().end()) return absl::OkStatus();  // the read says so
  const StoredTensor& stored = found->second;
  const DType dtype = layout.TensorOf(local, tensor).dtype;
  const Shape sizes = layout.TensorSizes(layout.local[local].parameter, tensor);
  if (stored.dtype == dtype && stored.sizes == sizes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("checkpoint \"", reader.manifest().id, "\": \"", key, "\" is ",
                   DTypeName(stored.dtype), " of shape ", ShapeToString(stored.sizes),
                   ", expected ", DTypeName(dtype), " of shape ", ShapeToString(sizes)));
}

// A disk that is full does not become free by calling again, as memory may.
absl::Status Final(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::FailedPreconditionError(status.message());
}

}  // namespace

CheckpointStore::CheckpointStore(FileSystem* files, std::string root, int server_rank,
                                 int keep_last, std::function<std::string()> make_token)
    : files_(files),
      root_(std::move(root)),
      server_rank_(server_rank),
      keep_last_(keep_last),
      make_token_(std::move(make_token)) {}

std::string CheckpointStore::RandomToken() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

absl::Status CheckpointStore::CheckRoot() const {
  if (!root_.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the fleet file names no \"checkpoints\": a folder that all servers see");
}

absl::StatusOr<v1::CheckpointBegun> CheckpointStore::Begin(const std::string& optimizer,
                                                           const v1::BeginCheckpoint& request) {
  SHARDSTEP_RETURN_IF_ERROR(CheckRoot());
  CheckpointRoot root(files_, root_);
  v1::CheckpointBegun begun;
  begun.set_checkpoint(request.checkpoint());
  begun.set_lineage_ordinal(request.lineage_ordinal());
  if (request.lineage_ordinal() == 0) {
    SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t next, root.NextOrdinal(optimizer));
    begun.set_lineage_ordinal(next);
  }
  begun.set_token(make_token_());
  const std::string given = DefaultCheckpointId(begun.lineage_ordinal(), request.version());
  begun.set_checkpoint_id(request.checkpoint_id().empty() ? given : request.checkpoint_id());
  absl::Status status = root.Begin(optimizer, begun.checkpoint_id(), begun.token());
  // The version has one, such as an automatic one, which may be removed: whoever asks for another
  // gets another.
  for (int i = 2; request.checkpoint_id().empty() && absl::IsAlreadyExists(status); ++i) {
    begun.set_checkpoint_id(absl::StrCat(given, "-", i));
    status = root.Begin(optimizer, begun.checkpoint_id(), begun.token());
  }
  if (!status.ok()) return Final(status);
  return begun;
}

absl::Status CheckpointStore::Finish(const std::string& optimizer,
                                     const v1::FinishCheckpoint& request) {
  SHARDSTEP_RETURN_IF_ERROR(CheckRoot());
  CheckpointRoot root(files_, root_);
  if (!request.has_facts()) return root.Abandon(optimizer, request.checkpoint_id());
  SHARDSTEP_ASSIGN_OR_RETURN(const Manifest manifest, ManifestFromFacts(request.facts()));
  SHARDSTEP_RETURN_IF_ERROR(
      Final(root.Finish(optimizer, request.checkpoint_id(), SerializeManifest(manifest))));
  // The checkpoint stands; older ones that could not be removed are removed with the next.
  if (manifest.automatic) (void)root.KeepLast(optimizer, keep_last_);
  return absl::OkStatus();
}

absl::StatusOr<v1::CheckpointFacts> CheckpointStore::ReadManifest(const std::string& optimizer,
                                                                  const v1::ReadManifest& request) {
  SHARDSTEP_RETURN_IF_ERROR(CheckRoot());
  std::string id = request.checkpoint_id();
  if (request.newest_of_lineage() != 0) {
    SHARDSTEP_ASSIGN_OR_RETURN(const CheckpointList list,
                               CheckpointRoot(files_, root_).List(optimizer));
    uint64_t newest = 0;
    for (const CheckpointInfo& checkpoint : list.checkpoints) {
      if (checkpoint.lineage != request.newest_of_lineage() || checkpoint.version < newest)
        continue;
      newest = checkpoint.version;
      id = checkpoint.id;
    }
  }
  if (id.empty()) {
    return absl::NotFoundError(
        absl::StrCat("optimizer \"", optimizer, "\": no checkpoint of it under \"", root_, "\""));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const CheckpointReader reader,
                             CheckpointReader::Open(files_, root_, optimizer, id));
  return FactsOf(reader);
}

absl::StatusOr<v1::CheckpointWritten> CheckpointStore::Write(const HeldVersion& held,
                                                             const v1::WriteCheckpoint& request,
                                                             const FileProgressFn& progress) {
  SHARDSTEP_RETURN_IF_ERROR(CheckRoot());
  const CheckpointRoot root(files_, root_);
  const std::string& optimizer = held.layout->name();
  const absl::Status seen = root.CheckProbe(optimizer, request.checkpoint_id(), request.token());
  if (!seen.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "server ", server_rank_, " does not see the checkpoint that server 0 began under \"", root_,
        "\": both must see one folder; ", seen.message()));
  }
  const std::vector<PlannedFile> files =
      PlanFiles(held.layout->plan, static_cast<int>(request.servers()));
  const std::string groups = ParamGroupsToJson(held.groups);
  v1::CheckpointWritten written;
  written.set_checkpoint(request.checkpoint());
  const int64_t total = BytesToWrite(held);
  int64_t done = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    if (files[i].server_rank != server_rank_) continue;
    std::vector<std::string> scalars;
    const std::vector<ShardTensor> tensors = TensorsOf(held, files[i], &scalars);
    absl::StatusOr<FileRecord> record =
        WriteShardFile(files_, root.WritingDirectory(optimizer, request.checkpoint_id()),
                       ShardFileName(i, files.size()), tensors, {{kParamGroupsKey, groups}},
                       [&](int64_t bytes) { progress(done += bytes, total); });
    if (!record.ok()) return Final(record.status());
    v1::CheckpointFile* file = written.add_files();
    file->set_name(std::move(record->name));
    file->set_bytes(record->bytes);
    file->set_sha256(std::move(record->sha256));
    file->set_chunk_bytes(record->chunk_bytes);
    file->mutable_crc32c()->Add(record->crc32c.begin(), record->crc32c.end());
  }
  return written;
}

absl::Status CheckpointStore::Fill(const Staging& staging, const std::string& id, Assembly* write,
                                   const FileProgressFn& progress) {
  SHARDSTEP_RETURN_IF_ERROR(CheckRoot());
  const Layout& layout = *staging.layout();
  SHARDSTEP_ASSIGN_OR_RETURN(const CheckpointReader reader,
                             CheckpointReader::Open(files_, root_, layout.name(), id));
  std::vector<CheckpointReader::Target> targets;
  for (size_t local = 0; local < layout.local.size(); ++local) {
    const LocalShardInfo& shard = layout.local[local];
    const std::string& name = layout.parameters[shard.parameter].name;
    for (uint32_t tensor = 0; tensor < write->num_tensors(); ++tensor) {
      if (!staging.Wants(local, tensor)) continue;
      std::string key =
          tensor == 0 ? ParameterKey(name) : StateKey(name, layout.states[tensor - 1].name);
      SHARDSTEP_RETURN_IF_ERROR(CheckStored(reader, key, layout, local, tensor));
      SHARDSTEP_ASSIGN_OR_RETURN(char* const out, write->Claim(local, tensor));
      targets.push_back({std::move(key), layout.TensorRegion(local, tensor), out});
    }
  }
  struct Scalar {
    std::pair<uint32_t, uint32_t> key;
    DType dtype;
    char bytes[sizeof(double)];
  };
  std::vector<Scalar> scalars;
  scalars.reserve(staging.wanted_scalars().size());  // targets point into them
  for (const auto& key : staging.wanted_scalars()) {
    const v1::StateSpec& spec = layout.description.states(key.second - 1);
    scalars.push_back({key, static_cast<DType>(spec.dtype()), {}});
    targets.push_back(
        {StateKey(layout.parameters[key.first].name, spec.name()), Region(), scalars.back().bytes});
  }
  int64_t done = 0;
  SHARDSTEP_RETURN_IF_ERROR(reader.Read(
      targets, [&](int64_t bytes) { progress(done += bytes, staging.wanted_bytes()); }));
  for (const Scalar& scalar : scalars) {
    write->SetScalar(scalar.key.first, scalar.key.second, ScalarFrom(scalar.bytes, scalar.dtype));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ListCheckpointsReply> CheckpointStore::List(const std::string& optimizer) {
  SHARDSTEP_RETURN_IF_ERROR(CheckRoot());
  SHARDSTEP_ASSIGN_OR_RETURN(const CheckpointList list,
                             CheckpointRoot(files_, root_).List(optimizer));
  v1::ListCheckpointsReply reply;
  for (const CheckpointProblem& problem : list.problems) {
    v1::ListCheckpointsReply::Checkpoint* checkpoint = reply.add_checkpoints();
    checkpoint->set_checkpoint_id(problem.id);
    checkpoint->set_problem(problem.what);
  }
  for (const CheckpointInfo& info : list.checkpoints) {
    v1::ListCheckpointsReply::Checkpoint* checkpoint = reply.add_checkpoints();
    checkpoint->set_checkpoint_id(info.id);
    checkpoint->set_version(info.version);
    checkpoint->set_bytes(info.bytes);
    checkpoint->set_lineage(info.lineage);
    checkpoint->set_automatic(info.automatic);
  }
  return reply;
}

absl::StatusOr<v1::VerifyCheckpointReply> CheckpointStore::Verify(
    const v1::VerifyCheckpointRequest& request) {
  SHARDSTEP_RETURN_IF_ERROR(CheckRoot());
  const std::string& optimizer = request.header().optimizer();
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(optimizer));
  SHARDSTEP_RETURN_IF_ERROR(ValidateCheckpointId(request.checkpoint_id()));
  v1::VerifyCheckpointReply reply;
  const CheckpointRoot root(files_, root_);
  const absl::StatusOr<Manifest> manifest = root.ReadManifest(optimizer, request.checkpoint_id());
  if (absl::IsNotFound(manifest.status())) return manifest.status();
  if (!manifest.ok()) {
    reply.add_problems(std::string(manifest.status().message()));
    return reply;
  }
  reply.set_files(manifest->files.size());
  reply.set_version(manifest->version);
  for (const FileRecord& file : manifest->files) {
    reply.set_total_bytes(reply.total_bytes() + file.bytes);
  }
  if (request.file() >= manifest->files.size()) {
    return absl::InvalidArgumentError(absl::StrCat("file ", request.file(), ", checkpoint \"",
                                                   request.checkpoint_id(), "\" has ",
                                                   manifest->files.size()));
  }
  const FileRecord& file = manifest->files[request.file()];
  reply.set_name(file.name);
  reply.set_bytes(file.bytes);
  const std::string directory = root.Directory(optimizer, request.checkpoint_id());
  for (const std::string& problem : VerifyFile(files_, directory, file, [](int64_t) {})) {
    reply.add_problems(absl::StrCat(file.name, ": ", problem));
  }
  // What no single file shows: whether the tensors fit the manifest. Told with the first.
  if (request.file() == 0 && reply.problems().empty()) {
    const auto reader = CheckpointReader::Open(files_, root_, optimizer, request.checkpoint_id());
    if (!reader.ok()) reply.add_problems(std::string(reader.status().message()));
  }
  return reply;
}

}  // namespace shardstep
