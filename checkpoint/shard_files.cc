#include "shardstep/checkpoint/shard_files.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/safetensors.h"
#include "shardstep/checkpoint/sha256.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/sharding/half_floats.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"

namespace shardstep {
namespace {

// Smaller pieces are gathered, so that a model of small tensors is not one of small writes.
constexpr size_t kGatherBytes = 256 << 10;

// Sends bytes to a file and to its checksums.
class ChecksummedFile {
 public:
  ChecksummedFile(WritableFile* file, absl::FunctionRef<void(int64_t)> progress)
      : file_(file), progress_(progress) {
    gathered_.reserve(kGatherBytes);
    record_.chunk_bytes = kChunkBytes;
  }

  absl::Status Append(absl::string_view data) {
    while (!data.empty()) {
      // A chunk at a time: what was just summed is in the cache when it is written.
      const int64_t filled = record_.bytes % kChunkBytes;
      const absl::string_view piece = data.substr(0, kChunkBytes - filled);
      if (filled == 0) record_.crc32c.push_back(0);
      record_.crc32c.back() = ExtendCrc32c(record_.crc32c.back(), piece);
      sha256_.Update(piece);
      record_.bytes += static_cast<int64_t>(piece.size());
      SHARDSTEP_RETURN_IF_ERROR(Write(piece));
      data.remove_prefix(piece.size());
    }
    return absl::OkStatus();
  }

  // Returns when all is on the disk. `name` is the record's.
  absl::StatusOr<FileRecord> Finish(const std::string& name) {
    SHARDSTEP_RETURN_IF_ERROR(Flush());
    SHARDSTEP_RETURN_IF_ERROR(file_->Sync());
    SHARDSTEP_RETURN_IF_ERROR(file_->Close());
    SHARDSTEP_ASSIGN_OR_RETURN(record_.sha256, sha256_.Finish());
    record_.name = name;
    return std::move(record_);
  }

 private:
  absl::Status Write(absl::string_view piece) {
    if (gathered_.size() + piece.size() > kGatherBytes) SHARDSTEP_RETURN_IF_ERROR(Flush());
    if (piece.size() < kGatherBytes) {
      gathered_.append(piece.data(), piece.size());
      return absl::OkStatus();
    }
    SHARDSTEP_RETURN_IF_ERROR(file_->Append(piece));
    progress_(static_cast<int64_t>(piece.size()));
    return absl::OkStatus();
  }

  absl::Status Flush() {
    if (gathered_.empty()) return absl::OkStatus();
    SHARDSTEP_RETURN_IF_ERROR(file_->Append(gathered_));
    progress_(static_cast<int64_t>(gathered_.size()));
    gathered_.clear();
    return absl::OkStatus();
  }

  WritableFile* const file_;
  const absl::FunctionRef<void(int64_t)> progress_;
  std::string gathered_;
  Sha256 sha256_;
  FileRecord record_;
};

// Elements of a master that are rounded at a time.
constexpr int64_t kRoundedElements = 32 << 10;

DType DTypeOfBytes(const ShardTensor& tensor) {
  return tensor.master ? MasterDType(tensor.dtype) : tensor.dtype;
}

// Rounds a master to the dtype that it has in the file.
absl::Status AppendRounded(const ShardTensor& tensor, ChecksummedFile* out) {
  const auto* from = reinterpret_cast<const float*>(tensor.bytes.data());
  int64_t left = static_cast<int64_t>(tensor.bytes.size() / sizeof(float));
  std::string rounded;
  while (left > 0) {
    const int64_t count = std::min(left, kRoundedElements);
    rounded.resize(static_cast<size_t>(count * ItemSize(tensor.dtype)));
    Narrow(tensor.dtype, from, count, rounded.data());
    SHARDSTEP_RETURN_IF_ERROR(out->Append(rounded));
    from += count;
    left -= count;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Header(absl::Span<const ShardTensor> tensors,
                                   const std::map<std::string, std::string>& extra_metadata) {
  std::vector<SafetensorsEntry> entries;
  Json offsets = Json::object();
  for (const ShardTensor& tensor : tensors) {
    entries.push_back({tensor.key, tensor.dtype, tensor.sizes});
    Json* entry = AddMember(&offsets, tensor.key, Json::object());
    AddMember(entry, "saved_offsets", tensor.saved_offsets);
  }
  std::map<std::string, std::string> metadata = extra_metadata;
  metadata["format"] = "pt";
  metadata["DCP_VERSION"] = "1.0";
  metadata[kShardingInfoKey] = DumpJson(offsets);
  SHARDSTEP_ASSIGN_OR_RETURN(std::string header,
                             LayoutSafetensors(absl::MakeSpan(entries), metadata));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const ShardTensor& tensor = tensors[i];
    SHARDSTEP_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(tensor.sizes, DTypeOfBytes(tensor)));
    if (static_cast<int64_t>(tensor.bytes.size()) != bytes ||
        tensor.saved_offsets.size() != tensor.sizes.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", tensor.key, "\": ", tensor.bytes.size(), " bytes at ",
                       ShapeToString(tensor.saved_offsets), ", expected ", bytes, " bytes for ",
                       DTypeName(DTypeOfBytes(tensor)), " of shape ", ShapeToString(tensor.sizes)));
    }
  }
  return header;
}

bool HasElements(const ShardMetadata& shard) {
  return std::find(shard.sizes.begin(), shard.sizes.end(), 0) == shard.sizes.end();
}

}  // namespace

std::vector<PlannedFile> PlanFiles(const Plan& plan, int servers) {
  absl::flat_hash_map<int, bool> has_elements;  // by parameter
  for (const PlannedShard& shard : plan.shards) {
    bool& has = has_elements[shard.parameter];
    has = has || HasElements(shard.metadata);
  }
  std::vector<std::vector<PlannedFile>> of_server(servers, std::vector<PlannedFile>(1));
  absl::flat_hash_map<std::pair<int, int>, size_t> used;  // files, by parameter and server
  int last_parameter = -1;
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    const PlannedShard& shard = plan.shards[i];
    if (has_elements[shard.parameter] && !HasElements(shard.metadata)) continue;
    const int server = shard.metadata.placement.server_rank;
    std::vector<PlannedFile>& files = of_server[server];
    const size_t file = used[{shard.parameter, server}]++;
    if (file == files.size()) files.emplace_back();
    files[file].shards.push_back(i);
    if (shard.parameter != last_parameter) files[file].scalars.push_back(shard.parameter);
    last_parameter = shard.parameter;
  }
  std::vector<PlannedFile> all;
  for (int server = 0; server < servers; ++server) {
    for (PlannedFile& file : of_server[server]) {
      file.server_rank = server;
      all.push_back(std::move(file));
    }
  }
  return all;
}

absl::StatusOr<FileRecord> WriteShardFile(FileSystem* files, const std::string& directory,
                                          const std::string& name,
                                          absl::Span<const ShardTensor> tensors,
                                          const std::map<std::string, std::string>& extra_metadata,
                                          absl::FunctionRef<void(int64_t bytes)> progress) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string header, Header(tensors, extra_metadata));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file,
                             files->CreateFile(JoinPath(directory, name)));
  int64_t bytes = static_cast<int64_t>(header.size());
  for (const ShardTensor& tensor : tensors) {
    bytes += static_cast<int64_t>(tensor.bytes.size()) / ItemSize(DTypeOfBytes(tensor)) *
             ItemSize(tensor.dtype);
  }
  SHARDSTEP_RETURN_IF_ERROR(file->Reserve(bytes));
  ChecksummedFile out(file.get(), progress);
  SHARDSTEP_RETURN_IF_ERROR(out.Append(header));
  for (const ShardTensor& tensor : tensors) {
    SHARDSTEP_RETURN_IF_ERROR(DTypeOfBytes(tensor) == tensor.dtype ? out.Append(tensor.bytes)
                                                                   : AppendRounded(tensor, &out));
  }
  return out.Finish(name);
}

}  // namespace shardstep
