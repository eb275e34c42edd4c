#include "shardstep/server/base_file.h"

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/server/device.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/record_file.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status AppendTensor(RecordWriter* writer, uint32_t shard, const std::string& state,
                          const at::Tensor& tensor) {
  v1::LogRecord record;
  record.mutable_tensor()->set_shard(shard);
  record.mutable_tensor()->set_state(state);
  return writer->Append(record, {HostBytes(tensor)});
}

// The records of one file, in order.
class BaseReader {
 public:
  BaseReader(std::unique_ptr<ReadableFile> file, int server_rank)
      : records_(std::move(file)), server_rank_(server_rank) {}

  absl::StatusOr<Base> Read() {
    SHARDSTEP_RETURN_IF_ERROR(ReadHeader());
    uint64_t tensors = 0;
    while (true) {
      SHARDSTEP_ASSIGN_OR_RETURN(const v1::LogRecord message, Next());
      if (message.has_tensor()) {
        SHARDSTEP_RETURN_IF_ERROR(Take(message.tensor()));
        ++tensors;
        continue;
      }
      if (!message.has_end() || message.end().tensors() != tensors) {
        return Broken(absl::StrCat("expected the end behind ", tensors, " tensors"));
      }
      break;
    }
    SHARDSTEP_ASSIGN_OR_RETURN(const auto behind, records_.Next());
    if (behind.has_value() || records_.torn()) return Broken("expected the file's end");
    for (size_t i = 0; i < base_.state.shards.size(); ++i) {
      if (!base_.state.shards[i].value.defined()) {
        return Broken(absl::StrCat("has no value of shard ", layout_->local[i].shard));
      }
    }
    return std::move(base_);
  }

 private:
  absl::Status Broken(absl::string_view why) const {
    return absl::DataLossError(
        absl::StrCat("\"", records_.path(), "\": byte ", records_.offset(), ": ", why));
  }

  absl::StatusOr<v1::LogRecord> Next() {
    incoming_ = at::Tensor();
    no_memory_ = absl::OkStatus();
    SHARDSTEP_ASSIGN_OR_RETURN(auto record,
                               records_.Next([this](const RecordReader::Record& record) {
                                 return Place(record.message.tensor(), record.payload_bytes);
                               }));
    SHARDSTEP_RETURN_IF_ERROR(no_memory_);
    if (!record.has_value()) return Broken("expected a record");
    return std::move(record->message);
  }

  // Memory for what becomes `incoming_`, if it fits a tensor of a shard.
  std::vector<absl::Span<char>> Place(const v1::BaseTensor& tensor, uint64_t bytes) {
    if (layout_ == nullptr || tensor.shard() >= layout_->local.size()) return {};
    const uint32_t state = tensor.state().empty() ? 0 : layout_->FindState(tensor.state());
    const bool known = state > 0 ? layout_->states[state - 1].kind != StateSpec::Kind::kScalar
                                 : tensor.state().empty();
    if (!known) return {};
    const LocalTensor info = layout_->TensorOf(tensor.shard(), state);
    if (bytes != static_cast<uint64_t>(info.bytes)) return {};
    absl::StatusOr<at::Tensor> memory = AllocateFlat(info.dtype, info.elements);
    no_memory_ = memory.status();
    if (!memory.ok()) return {};
    incoming_ = *std::move(memory);
    return {{static_cast<char*>(incoming_.data_ptr()), incoming_.nbytes()}};
  }

  absl::Status ReadHeader() {
    SHARDSTEP_ASSIGN_OR_RETURN(v1::LogRecord message, Next());
    if (!message.has_base()) return Broken("expected the header of a base");
    base_.header = std::move(*message.mutable_base());
    auto layout = Layout::Make(base_.header.description(), server_rank_);
    if (!layout.ok()) return Broken(layout.status().message());
    layout_ = *std::move(layout);
    base_.state.shards.resize(layout_->local.size());
    for (size_t i = 0; i < layout_->local.size(); ++i) {
      base_.state.shards[i].parameter = layout_->local[i].parameter;
    }
    if (base_.header.scalars_size() != static_cast<int>(layout_->parameters.size())) {
      return Broken(absl::StrCat("has scalars of ", base_.header.scalars_size(),
                                 " parameters, expected ", layout_->parameters.size()));
    }
    for (const v1::BaseHeader::Scalars& scalars : base_.header.scalars()) {
      std::vector<ScalarState>& state = base_.state.scalars.emplace_back();
      for (const auto& scalar : scalars.scalars()) {
        state.push_back({scalar.name(), scalar.value(), static_cast<DType>(scalar.dtype())});
      }
    }
    return absl::OkStatus();
  }

  absl::Status Take(const v1::BaseTensor& tensor) {
    if (!incoming_.defined()) {
      return Broken(absl::StrCat(
          "has ", tensor.state().empty() ? "a value" : absl::StrCat("\"", tensor.state(), "\""),
          " that does not fit shard ", tensor.shard(), " of server ", server_rank_));
    }
    LocalState::Shard& shard = base_.state.shards[tensor.shard()];
    if (!seen_.emplace(tensor.shard(), tensor.state()).second) {
      return Broken(
          absl::StrCat("has \"", tensor.state(), "\" of shard ", tensor.shard(), " twice"));
    }
    if (tensor.state().empty()) {
      shard.value = std::move(incoming_);
    } else {
      shard.states.push_back({tensor.state(), std::move(incoming_)});
    }
    return absl::OkStatus();
  }

  RecordReader records_;
  const int server_rank_;
  std::shared_ptr<const Layout> layout_;
  Base base_;
  std::set<std::pair<uint32_t, std::string>> seen_;
  // Of the record that is being read.
  at::Tensor incoming_;
  absl::Status no_memory_;
};

}  // namespace

absl::Status WriteBaseFile(FileSystem* files, const std::string& path, v1::BaseHeader header,
                           const LocalState& state) {
  header.clear_scalars();
  for (const std::vector<ScalarState>& scalars : state.scalars) {
    v1::BaseHeader::Scalars* const into = header.add_scalars();
    for (const ScalarState& scalar : scalars) {
      auto* const added = into->add_scalars();
      added->set_name(scalar.name);
      added->set_value(scalar.value);
      added->set_dtype(static_cast<v1::DType>(scalar.dtype));
    }
  }
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, files->CreateFile(path));
  RecordWriter writer(std::move(file), ChainPosition());
  v1::LogRecord record;
  *record.mutable_base() = std::move(header);
  SHARDSTEP_RETURN_IF_ERROR(writer.Append(record, {}));
  uint64_t tensors = 0;
  for (size_t i = 0; i < state.shards.size(); ++i) {
    SHARDSTEP_RETURN_IF_ERROR(AppendTensor(&writer, i, "", state.shards[i].value));
    for (const TensorState& tensor : state.shards[i].states) {
      SHARDSTEP_RETURN_IF_ERROR(AppendTensor(&writer, i, tensor.name, tensor.tensor));
    }
    tensors += 1 + state.shards[i].states.size();
  }
  record.mutable_end()->set_tensors(tensors);
  SHARDSTEP_RETURN_IF_ERROR(writer.Append(record, {}));
  return writer.Sync();
}

absl::StatusOr<Base> ReadBaseFile(FileSystem* files, const std::string& path, int server_rank) {
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, files->OpenFile(path));
  return BaseReader(std::move(file), server_rank).Read();
}

}  // namespace shardstep
