#include "shardstep/client/fake_fleet.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <variant>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {

RetryPolicy FakePolicy(FakeTimer* timer) {
  RetryPolicy policy;
  policy.timer = timer;
  policy.random = [] { return 0.75; };
  return policy;
}

class FakeServer::Stream final : public ByteStream {
 public:
  Stream(FakeServer* server, StreamListener* listener, bool write)
      : server_(server), listener_(listener), write_(write) {}
  ~Stream() override {
    held_.clear();
    Close(absl::CancelledError(""));
  }

  void Send(grpc::ByteBuffer&& message, bool another_follows) override {
    if (closed_) return;
    ++server_->messages;
    if (!another_follows) ++server_->departures;
    if (server_->break_after == 0) {
      server_->break_after = -1;
      return Close(absl::UnavailableError("Socket closed"));
    }
    if (server_->break_after > 0) --server_->break_after;
    absl::Status status;
    {
      const absl::StatusOr<ReceivedFrame> received = ReceivedFrame::FromBuffer(message);
      const absl::StatusOr<FrameView> frame =
          received.ok() ? received->Decode() : absl::StatusOr<FrameView>(received.status());
      status = frame.ok() ? server_->Take(this, *frame) : frame.status();
    }
    if (server_->hold_messages) held_.push_back(message);
    message.Clear();
    if (!status.ok()) return Close(status);
    listener_->OnSent();
  }

  void CloseSending() override {
    if (write_) Close(absl::OkStatus());
  }
  void Cancel() override { Close(absl::CancelledError("")); }

  void Answer(const google::protobuf::MessageLite& message) {
    listener_->OnReceived(SerializeToBuffer(message));
  }

  ReceivedTensors current;
  bool answered = false;

 private:
  void Close(const absl::Status& status) {
    if (closed_) return;
    closed_ = true;
    listener_->OnClosed(status);
  }

  FakeServer* const server_;
  StreamListener* const listener_;
  const bool write_;
  bool closed_ = false;
  std::vector<grpc::ByteBuffer> held_;
};

std::unique_ptr<ByteStream> FakeServer::Open(StreamListener* listener, bool write) {
  ++streams;
  return std::make_unique<Stream>(this, listener, write);
}

absl::Status FakeServer::Take(Stream* stream, const FrameView& frame) {
  ReceivedTensors& current = stream->current;
  switch (frame.header.kind_case()) {
    case v1::FrameHeader::kBegin:
      current = ReceivedTensors();
      current.begin = frame.header.begin();
      return absl::OkStatus();
    case v1::FrameHeader::kWriteBegin:
      current = ReceivedTensors();
      current.write_begin = frame.header.write_begin();
      return absl::OkStatus();
    case v1::FrameHeader::kSlices:
      break;
    case v1::FrameHeader::kScalars:
      current.frame_checksums.push_back(frame.crc32c);
      current.scalars.insert(current.scalars.end(), frame.header.scalars().scalars().begin(),
                             frame.header.scalars().scalars().end());
      return absl::OkStatus();
    case v1::FrameHeader::kEnd: {
      on_end();
      current.end = frame.header.end();
      FrameDigest digest;
      for (uint32_t checksum : current.frame_checksums) digest.Add(checksum);
      if (current.end.frames() != current.frame_checksums.size() ||
          current.end.digest() != digest.value()) {
        return absl::DataLossError("End does not fit the frames");
      }
      received.push_back(current);
      if (current.write_begin.staging() != 0) {
        stream->Answer(v1::WriteStateReply());
        return absl::OkStatus();
      }
      v1::PushAck ack;
      ack.set_session(current.begin.header().session());
      ack.set_sequence(current.begin.header().sequence());
      absl::Status answer;
      if (!answers.empty()) {
        answer = answers.front();
        answers.pop_front();
      }
      *ack.mutable_status() = ToRichStatus(answer);
      stream->Answer(ack);
      return absl::OkStatus();
    }
    default:
      return absl::InvalidArgumentError("unexpected frame");
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckSlices(frame));
  current.frame_checksums.push_back(frame.crc32c);
  current.max_payload = std::max(current.max_payload, frame.payload_bytes);
  PayloadReader payload(frame);
  for (const v1::Slice& slice : frame.header.slices().slices()) {
    current.slices.push_back(slice);
    const PlannedShard& shard = index_->shard(static_cast<int>(slice.shard()));
    const size_t item = ItemSize(index_->TensorDType(shard.parameter, slice.tensor()));
    if (slice.body() == v1::Slice::ROWS) {
      auto& [numbers, elements] = current.rows[slice.shard()];
      for (uint64_t i = 0; i < slice.count(); ++i) {
        payload.CopyTo(&numbers.emplace_back(), sizeof(int64_t));
      }
      const size_t before = elements.size();
      elements.resize(before + slice.count() * slice.row_elements() * item);
      payload.CopyTo(&elements[before], elements.size() - before);
      continue;
    }
    std::string& bytes = slice.tensor() == 0 ? current.shards[slice.shard()]
                                             : current.state[{slice.shard(), slice.tensor()}];
    const Region region = index_->TensorRegion(static_cast<int>(slice.shard()), slice.tensor());
    bytes.resize(NumElements(region.sizes).value() * item, '?');
    if (slice.body() == v1::Slice::ZERO) {
      std::memset(&bytes[slice.offset() * item], 0, slice.count() * item);
    } else {
      payload.CopyTo(&bytes[slice.offset() * item], slice.count() * item);
    }
  }
  return absl::OkStatus();
}

class FakeReadServer::Stream final : public ByteStream {
 public:
  Stream(FakeReadServer* server, Script script, StreamListener* listener)
      : server_(server), script_(std::move(script)), listener_(listener) {
    Play();
  }
  ~Stream() override { Cancel(); }

  void Send(grpc::ByteBuffer&&, bool) override {}
  void CloseSending() override {}
  void Resume() override {
    if (paused_) Play();
  }
  void Cancel() override {
    if (paused_) listener_->OnClosed(absl::CancelledError(""));
    paused_ = false;
  }

 private:
  void Play() {
    paused_ = false;
    while (next_ < script_.headers.size()) {
      const size_t i = next_++;
      std::string bytes = EncodeFramePrefix(script_.headers[i], {script_.payloads[i]}).bytes;
      bytes += script_.payloads[i];
      if (script_.corrupt_last && next_ == script_.headers.size()) bytes.back() ^= 1;
      const grpc::Slice slice(bytes);
      ++server_->played;
      listener_->OnReceived(grpc::ByteBuffer(&slice, 1));
      if (!listener_->WantsMore()) {
        paused_ = true;
        return;
      }
    }
    paused_ = script_.hangs;
    if (!paused_) listener_->OnClosed(script_.status);
  }

  FakeReadServer* const server_;
  const Script script_;
  StreamListener* const listener_;
  size_t next_ = 0;
  bool paused_ = false;
};

std::unique_ptr<ByteStream> FakeReadServer::Open(const v1::ReadStateRequest& request,
                                                 StreamListener* listener) {
  requests.push_back(request);
  Script script;
  script.status = absl::InternalError("no script");
  if (!scripts.empty()) {
    script = std::move(scripts.front());
    scripts.pop_front();
  } else if (serve) {
    script = serve(request);
  }
  return std::make_unique<Stream>(this, std::move(script), listener);
}

namespace {

// A tensor of one shard that a request asks for, and which block of it.
struct Asked {
  int shard;
  uint32_t tensor;
  Region part;
  const HostTensor* values;
};

// The slices of `asked`, each at most `most` bytes long, without the first *skip bytes of all.
void AppendSlices(const OptimizerIndex& index, const Asked& asked, size_t most, uint64_t* skip,
                  std::vector<std::pair<v1::Slice, std::string>>* out) {
  const Region shard = index.TensorRegion(asked.shard, asked.tensor);
  const size_t item = static_cast<size_t>(ItemSize(asked.values->dtype));
  const auto append = [&](uint64_t offset, absl::string_view bytes) {
    v1::Slice slice;
    slice.set_shard(static_cast<uint32_t>(asked.shard));
    slice.set_offset(offset);
    slice.set_count(bytes.size() / item);
    slice.set_dtype(DTypeToProto(asked.values->dtype));
    slice.set_tensor(asked.tensor);
    out->emplace_back(slice, std::string(bytes));
  };
  if (IsEmpty(asked.part)) return append(0, "");
  ForEachRun(asked.part, shard, WholeRegion(asked.values->sizes),
             [&](int64_t in_shard, int64_t in_tensor, int64_t count) {
               absl::string_view bytes(asked.values->bytes.data() + in_tensor * item, count * item);
               uint64_t offset = static_cast<uint64_t>(in_shard);
               const uint64_t skipped = std::min<uint64_t>(*skip, bytes.size());
               *skip -= skipped;
               bytes.remove_prefix(skipped);
               offset += skipped / item;
               while (!bytes.empty()) {
                 const absl::string_view piece = bytes.substr(0, most / item * item);
                 append(offset, piece);
                 offset += piece.size() / item;
                 bytes.remove_prefix(piece.size());
               }
             });
}

}  // namespace

FakeReadServer::Script ServeRead(const OptimizerIndex& index, int server_rank,
                                 const v1::Snapshot& snapshot, const StateDict& dict,
                                 const v1::ReadStateRequest& request, size_t frame_bytes) {
  std::vector<std::pair<v1::Slice, std::string>> slices;
  v1::Scalars scalars;
  uint64_t skip = request.skip_bytes();
  const std::vector<StateSpec>& states = index.description().states;
  const auto add = [&](int parameter, const std::string& state, std::optional<Region> block) {
    const ParameterInfo& info = index.parameters()[parameter];
    const auto found = dict.state.find(info.name);
    const auto [first, end] = index.ShardsOf(parameter);
    bool here = false;
    for (int shard = first; shard < end; ++shard) {
      if (index.shard(shard).metadata.placement.server_rank != server_rank) continue;
      here = true;
      const Region region = RegionOf(index.shard(shard).metadata);
      const std::optional<Region> part = Intersect(block.value_or(region), region);
      if (part && state.empty() && request.selector().parameters()) {
        AppendSlices(index, {shard, 0, *part, &dict.parameters.at(info.name)}, frame_bytes, &skip,
                     &slices);
      }
      for (size_t k = 0; k < states.size() && found != dict.state.end(); ++k) {
        if (state.empty() ? !request.selector().state() : state != states[k].name) continue;
        const auto value = found->second.find(states[k].name);
        if (value == found->second.end() || !std::holds_alternative<HostTensor>(value->second)) {
          continue;
        }
        const uint32_t tensor = static_cast<uint32_t>(k + 1);
        const Region kept = index.TensorRegion(shard, tensor);
        const bool empty = IsEmpty(kept) && !block;
        if (!IsEmpty(kept) && !IsFirstOfExtent(states[k].extent, region)) continue;
        std::optional<Region> asked = block;
        if (asked && state.empty()) asked = index.TensorPartOf(*block, tensor);
        asked = Intersect(asked.value_or(kept), kept);
        if (!asked && !empty) continue;
        AppendSlices(index,
                     {shard, tensor, empty ? kept : *asked, &std::get<HostTensor>(value->second)},
                     frame_bytes, &skip, &slices);
      }
    }
    for (size_t k = 0; k < states.size() && here && found != dict.state.end(); ++k) {
      if (state.empty() ? !request.selector().state() : state != states[k].name) continue;
      const auto value = found->second.find(states[k].name);
      if (value == found->second.end() || !std::holds_alternative<double>(value->second)) continue;
      v1::Scalars::Scalar& scalar = *scalars.add_scalars();
      scalar.set_parameter(static_cast<uint32_t>(parameter));
      scalar.set_tensor(static_cast<uint32_t>(k + 1));
      scalar.set_value(std::get<double>(value->second));
    }
  };
  for (const v1::TensorSelector& tensor : request.selector().tensors()) {
    std::optional<Region> block;
    if (!tensor.sizes().empty()) {
      block = Region{Shape(tensor.offsets().begin(), tensor.offsets().end()),
                     Shape(tensor.sizes().begin(), tensor.sizes().end())};
    }
    add(index.Find(tensor.parameter()).value(), tensor.state(), block);
  }
  if (request.selector().tensors().empty()) {
    for (size_t i = 0; i < index.parameters().size(); ++i) {
      add(static_cast<int>(i), "", std::nullopt);
    }
  }
  return ReadOf(snapshot, slices, scalars);
}

FakeReadServer::Script ReadOf(const v1::Snapshot& snapshot,
                              const std::vector<std::pair<v1::Slice, std::string>>& slices,
                              const v1::Scalars& scalars) {
  FakeReadServer::Script script;
  FrameDigest digest;
  uint64_t bytes = 0;
  script.headers.emplace_back();  // ReadBegin, once the bytes are counted
  script.payloads.emplace_back();
  const auto append = [&](const v1::FrameHeader& header, const std::string& payload) {
    digest.Add(EncodeFramePrefix(header, {payload}).crc32c);
    bytes += payload.size();
    script.headers.push_back(header);
    script.payloads.push_back(payload);
  };
  for (const auto& [slice, payload] : slices) {
    v1::FrameHeader header;
    *header.mutable_slices()->add_slices() = slice;
    append(header, payload);
  }
  if (scalars.scalars_size() > 0) {
    v1::FrameHeader header;
    *header.mutable_scalars() = scalars;
    append(header, "");
  }
  v1::ReadBegin& begin = *script.headers[0].mutable_read_begin();
  begin.set_version(snapshot.version());
  begin.set_lineage(snapshot.lineage());
  begin.set_plan_id(snapshot.plan_id());
  begin.set_bytes(bytes);
  v1::FrameHeader end;
  end.mutable_read_end()->set_frames(script.headers.size() - 1);
  end.mutable_read_end()->set_digest(digest.value());
  script.headers.push_back(end);
  script.payloads.emplace_back();
  return script;
}

std::pair<v1::Slice, std::string> FloatSlice(uint32_t shard, uint64_t offset,
                                             const std::vector<float>& values, uint32_t tensor) {
  v1::Slice slice;
  slice.set_shard(shard);
  slice.set_offset(offset);
  slice.set_count(values.size());
  slice.set_dtype(v1::FLOAT32);
  slice.set_tensor(tensor);
  return {slice, std::string(reinterpret_cast<const char*>(values.data()), values.size() * 4)};
}

MockConnection::MockConnection(std::shared_ptr<const OptimizerIndex> index, int num_servers)
    : readers(num_servers) {
  for (int i = 0; i < num_servers; ++i) servers.push_back(std::make_unique<FakeServer>(index));
}

OptimizerDescription Describe(std::vector<ParameterShape> parameters, int servers,
                              const PlannerOptions& planner) {
  OptimizerDescription description;
  OptimizerDefinition& definition = description.definition;
  definition.name = "digits";
  definition.kind = "SGD";
  definition.defaults = CompleteOptions("SGD", {{"lr", 0.1}}).value();
  ParamGroup group{definition.defaults, {}};
  for (const ParameterShape& parameter : parameters) group.params.push_back(parameter.name);
  definition.groups = {group};
  definition.sharded.assign(parameters.size(), false);
  definition.mode = Synchronous(2);
  description.plan = MakePlan(parameters, servers, planner).value();
  definition.parameters = std::move(parameters);
  description.groups = definition.groups;
  description.states = {{"momentum_buffer", StateSpec::Kind::kLikeParameter, DType::kInvalid},
                        {"step", StateSpec::Kind::kScalar, DType::kFloat32}};
  return description;
}

std::shared_ptr<ClientCore> MakeCore(std::unique_ptr<Connection> connection, FakeTimer* timer) {
  return std::make_shared<ClientCore>(FleetFile(), nullptr, std::move(connection),
                                      FakePolicy(timer), absl::Minutes(1));
}

}  // namespace shardstep::internal
