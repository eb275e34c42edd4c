#include "shardstep/client/state_dict_read.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/names.h"
#include "shardstep/checkpoint/safetensors_file.h"
#include "shardstep/client/state_dict_metadata.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

// Between two reports of progress.
constexpr uint64_t kProgressBytes = 8 << 20;

// Runs `attempt` with a fresh stream until its snapshot is not lost on the way.
template <typename Result, typename Attempt>
absl::StatusOr<Result> WithStream(PullCore* pull, const StateDictOptions& options,
                                  uint64_t at_least, const Attempt& attempt) {
  const absl::Time deadline = pull->client()->Now() + options.timeout;
  while (true) {
    absl::StatusOr<std::unique_ptr<StateDictStream>> stream =
        OpenStateDictStream(pull, options, at_least, deadline);
    absl::StatusOr<Result> result =
        stream.ok() ? attempt(stream->get()) : absl::StatusOr<Result>(stream.status());
    if (result.ok() || ReasonOf(result.status()) != v1::SNAPSHOT_GONE ||
        pull->client()->Now() >= deadline) {
      return result;
    }
  }
}

absl::StatusOr<StateDict> Collect(StateDictStream* stream) {
  StateDict dict;
  dict.version = stream->version();
  dict.lineage = stream->lineage();
  dict.param_groups = stream->param_groups();
  dict.trainer_states = stream->trainer_states();
  std::vector<char*> memory;  // by entry
  for (const StateDictEntry& entry : stream->entries()) {
    if (entry.scalar) {
      dict.state[entry.parameter][entry.state] = *entry.scalar;
      memory.push_back(nullptr);
      continue;
    }
    SHARDSTEP_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(entry.region.sizes, entry.dtype));
    HostTensor tensor{entry.dtype, ToShape(entry.region.sizes), std::vector<char>(bytes)};
    memory.push_back(tensor.bytes.data());  // stays where it is when the tensor is moved
    if (entry.state.empty()) {
      dict.parameters[entry.parameter] = std::move(tensor);
    } else {
      dict.state[entry.parameter][entry.state] = std::move(tensor);
    }
  }
  while (true) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::optional<StateDictPiece> piece, stream->Next());
    if (!piece) return dict;
    if (memory[piece->entry] == nullptr) continue;
    std::memcpy(memory[piece->entry] + piece->offset, piece->bytes.data(), piece->bytes.size());
  }
}

absl::StatusOr<SaveResult> Save(StateDictStream* stream, const std::string& path,
                                const SaveOptions& options) {
  std::vector<SafetensorsEntry> entries;
  for (const StateDictEntry& entry : stream->entries()) {
    SafetensorsEntry& out = entries.emplace_back();
    if (options.parameters_only) {
      out.name = entry.parameter;
    } else {
      out.name = entry.state.empty() ? ParameterKey(entry.parameter)
                                     : StateKey(entry.parameter, entry.state);
    }
    out.dtype = entry.dtype;
    out.sizes = ToShape(entry.region.sizes);
  }
  StateDictMetadata metadata;
  if (!options.parameters_only) {
    metadata.version = stream->version();
    metadata.param_groups = stream->param_groups();
    metadata.trainer_states = stream->trainer_states();
  }
  SHARDSTEP_ASSIGN_OR_RETURN(
      const std::unique_ptr<SafetensorsWriter> file,
      SafetensorsWriter::Create(PosixFileSystem(), path, std::move(entries), ToText(metadata)));
  uint64_t done = 0;
  uint64_t reported = 0;
  while (true) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::optional<StateDictPiece> piece, stream->Next());
    if (!piece) break;
    SHARDSTEP_RETURN_IF_ERROR(
        file->WriteAt(piece->entry, static_cast<int64_t>(piece->offset), piece->bytes));
    done += piece->bytes.size();
    if (options.progress && (done - reported >= kProgressBytes || done == stream->total_bytes())) {
      options.progress(done, stream->total_bytes());
      reported = done;
    }
  }
  SHARDSTEP_RETURN_IF_ERROR(file->Commit());
  return SaveResult{stream->version(), stream->lineage(), stream->total_bytes()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateDictStream>> OpenStateDictStream(
    PullCore* pull, const StateDictOptions& options, uint64_t at_least, absl::Time deadline) {
  const bool state =
      options.state || std::any_of(options.parts.begin(), options.parts.end(),
                                   [](const TensorPart& part) { return !part.state.empty(); });
  while (true) {
    SHARDSTEP_ASSIGN_OR_RETURN(
        std::shared_ptr<SnapshotHold> hold,
        pull->Hold(state ? v1::EVERYTHING : v1::PARAMETERS, at_least, deadline));
    absl::StatusOr<std::unique_ptr<StateDictStream>> stream =
        StateDictStream::Open(pull->client(), pull->header(), hold, options, deadline);
    if (stream.ok() || ReasonOf(stream.status()) != v1::SNAPSHOT_GONE) return stream;
    pull->Drop(hold);
    if (pull->client()->Now() >= deadline) return stream;
  }
}

absl::StatusOr<StateDict> ReadStateDict(PullCore* pull, const StateDictOptions& options,
                                        uint64_t at_least) {
  return WithStream<StateDict>(pull, options, at_least, Collect);
}

absl::StatusOr<SaveResult> SaveStateDictTo(PullCore* pull, const std::string& path,
                                           const SaveOptions& options, uint64_t at_least) {
  StateDictOptions read;
  read.state = !options.parameters_only;
  read.timeout = options.timeout;
  return WithStream<SaveResult>(
      pull, read, at_least, [&](StateDictStream* stream) { return Save(stream, path, options); });
}

}  // namespace shardstep::internal
