#include "shardstep/client/load_source.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/names.h"
#include "shardstep/checkpoint/option_json.h"
#include "shardstep/checkpoint/safetensors_file.h"
#include "shardstep/client/state_dict_metadata.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {
namespace {

constexpr uint64_t kFileReadBytes = 4 << 20;
constexpr int64_t kMaxGroupsJsonBytes = 256 << 20;

class MemorySource final : public LoadSource {
 public:
  static absl::StatusOr<std::unique_ptr<LoadSource>> Make(const StateDict& dict) {
    auto source = std::make_unique<MemorySource>();
    source->param_groups_ = dict.param_groups;
    source->trainer_states_ = dict.trainer_states;
    source->version_ = dict.version;
    // Both maps are sorted; a value stands before the state of its name.
    auto value = dict.parameters.begin();
    auto state = dict.state.begin();
    while (value != dict.parameters.end() || state != dict.state.end()) {
      if (state == dict.state.end() ||
          (value != dict.parameters.end() && value->first <= state->first)) {
        SHARDSTEP_RETURN_IF_ERROR(source->Add(value->first, "", value->second));
        ++value;
        continue;
      }
      for (const auto& [name, entry] : state->second) {
        if (const double* const scalar = std::get_if<double>(&entry)) {
          source->tensors_.push_back({state->first, name, DType::kFloat64, {}});
          source->bytes_.emplace_back(reinterpret_cast<const char*>(scalar), sizeof(double));
        } else {
          SHARDSTEP_RETURN_IF_ERROR(source->Add(state->first, name, std::get<HostTensor>(entry)));
        }
      }
      ++state;
    }
    return source;
  }

  absl::StatusOr<absl::string_view> Read(size_t tensor, uint64_t offset, uint64_t bytes,
                                         std::shared_ptr<const void>*) const override {
    return bytes_[tensor].substr(offset, bytes);
  }
  uint64_t max_read_bytes() const override { return UINT64_MAX; }

 private:
  absl::Status Add(const std::string& parameter, const std::string& state,
                   const HostTensor& tensor) {
    const std::string what = state.empty()
                                 ? absl::StrCat("parameter \"", parameter, "\"")
                                 : absl::StrCat("state \"", state, "\" of \"", parameter, "\"");
    const absl::StatusOr<int64_t> bytes = NumBytes(tensor.sizes, tensor.dtype);
    if (!bytes.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": ", bytes.status().message()));
    }
    if (static_cast<size_t>(*bytes) != tensor.bytes.size()) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": shape ", ShapeToString(tensor.sizes),
                                                     " of ", DTypeName(tensor.dtype), " has ",
                                                     *bytes, " bytes, got ", tensor.bytes.size()));
    }
    tensors_.push_back({parameter, state, tensor.dtype, tensor.sizes});
    bytes_.emplace_back(tensor.bytes.data(), tensor.bytes.size());
    return absl::OkStatus();
  }

  std::vector<absl::string_view> bytes_;  // by tensor
};

class FileSource final : public LoadSource {
 public:
  explicit FileSource(SafetensorsReader file) : file_(std::move(file)) {}

  absl::Status Init(const SafetensorsSource& source, const OptimizerIndex& index) {
    SHARDSTEP_RETURN_IF_ERROR(NameTensors(index));
    SHARDSTEP_ASSIGN_OR_RETURN(StateDictMetadata metadata, MetadataFromText(file_.metadata()));
    param_groups_ = std::move(metadata.param_groups);
    trainer_states_ = std::move(metadata.trainer_states);
    version_ = metadata.version;
    if (source.param_groups_json_path.empty()) return absl::OkStatus();
    SHARDSTEP_ASSIGN_OR_RETURN(
        const std::string text,
        ReadWholeFile(PosixFileSystem(), source.param_groups_json_path, kMaxGroupsJsonBytes));
    absl::StatusOr<std::vector<ParamGroup>> groups = ParamGroupsFromJson(text);
    if (!groups.ok()) {
      return absl::Status(groups.status().code(), absl::StrCat("\"", source.param_groups_json_path,
                                                               "\": ", groups.status().message()));
    }
    param_groups_ = *std::move(groups);
    return absl::OkStatus();
  }

  absl::StatusOr<absl::string_view> Read(size_t tensor, uint64_t offset, uint64_t bytes,
                                         std::shared_ptr<const void>* owner) const override {
    auto buffer = std::make_shared<std::vector<char>>(bytes);
    SHARDSTEP_RETURN_IF_ERROR(file_.Read(entries_[tensor], static_cast<int64_t>(offset),
                                         buffer->data(), static_cast<int64_t>(bytes)));
    const absl::string_view view(buffer->data(), buffer->size());
    *owner = std::move(buffer);
    return view;
  }
  uint64_t max_read_bytes() const override { return kFileReadBytes; }

 private:
  // Plain names are meant where no key is a state's and more of them are parameters as they stand
  // than without their prefix.
  bool HasPlainNames(const OptimizerIndex& index) const {
    int plain = 0;
    int prefixed = 0;
    for (const SafetensorsEntry& entry : file_.entries()) {
      const absl::StatusOr<TensorKey> key = ParseKey(entry.name);
      if (key.ok() && !key->state.empty()) return false;
      plain += index.Has(entry.name) ? 1 : 0;
      prefixed += key.ok() && index.Has(key->parameter) ? 1 : 0;
    }
    return plain > prefixed;
  }

  absl::Status NameTensors(const OptimizerIndex& index) {
    const bool plain = HasPlainNames(index);
    std::vector<Tensor> tensors;
    for (const SafetensorsEntry& entry : file_.entries()) {
      Tensor& tensor = tensors.emplace_back();
      tensor.dtype = entry.dtype;
      tensor.sizes = entry.sizes;
      if (plain) {
        tensor.parameter = entry.name;
        continue;
      }
      const absl::StatusOr<TensorKey> key = ParseKey(entry.name);
      if (!key.ok()) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"", file_.path(), "\": ", key.status().message()));
      }
      tensor.parameter = std::string(key->parameter);
      tensor.state = std::string(key->state);
    }
    entries_.resize(tensors.size());
    std::iota(entries_.begin(), entries_.end(), size_t{0});
    std::sort(entries_.begin(), entries_.end(), [&tensors](size_t a, size_t b) {
      return std::tie(tensors[a].parameter, tensors[a].state) <
             std::tie(tensors[b].parameter, tensors[b].state);
    });
    for (size_t entry : entries_) tensors_.push_back(std::move(tensors[entry]));
    return absl::OkStatus();
  }

  const SafetensorsReader file_;
  std::vector<size_t> entries_;  // of the file, by tensor
};

}  // namespace

absl::StatusOr<std::unique_ptr<LoadSource>> LoadSource::Of(const StateDict& dict) {
  return MemorySource::Make(dict);
}

absl::StatusOr<std::unique_ptr<LoadSource>> LoadSource::Open(const SafetensorsSource& source,
                                                             const OptimizerIndex& index) {
  SHARDSTEP_ASSIGN_OR_RETURN(SafetensorsReader file,
                             SafetensorsReader::Open(PosixFileSystem(), source.path));
  auto opened = std::make_unique<FileSource>(std::move(file));
  SHARDSTEP_RETURN_IF_ERROR(opened->Init(source, index));
  return opened;
}

}  // namespace shardstep::internal
