#include "shardstep/client/fake_fleet.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/option_checks.h"
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

  void Send(grpc::ByteBuffer message) override {
    if (closed_) return;
    ++server_->messages;
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
    case v1::FrameHeader::kEnd: {
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
    const size_t item = ItemSize(index_->parameters()[shard.parameter].dtype);
    std::string& bytes = current.shards[slice.shard()];
    bytes.resize(NumElements(shard.metadata.sizes).value() * item, '?');
    if (slice.body() == v1::Slice::ZERO) {
      std::memset(&bytes[slice.offset() * item], 0, slice.count() * item);
    } else {
      payload.CopyTo(&bytes[slice.offset() * item], slice.count() * item);
    }
  }
  return absl::OkStatus();
}

namespace {

// Plays a script from its destructor's point of view: everything has happened before it is made.
class PlayedStream final : public ByteStream {
 public:
  void Send(grpc::ByteBuffer) override {}
  void CloseSending() override {}
  void Cancel() override {}
};

}  // namespace

std::unique_ptr<ByteStream> FakeReadServer::Open(const v1::ReadStateRequest& request,
                                                 StreamListener* listener) {
  requests.push_back(request);
  if (scripts.empty()) {
    listener->OnClosed(absl::InternalError("no script"));
    return std::make_unique<PlayedStream>();
  }
  const Script script = std::move(scripts.front());
  scripts.pop_front();
  for (size_t i = 0; i < script.headers.size(); ++i) {
    std::string bytes = EncodeFramePrefix(script.headers[i], {script.payloads[i]}).bytes;
    bytes += script.payloads[i];
    if (script.corrupt_last && i + 1 == script.headers.size()) bytes.back() ^= 1;
    const grpc::Slice slice(bytes);
    listener->OnReceived(grpc::ByteBuffer(&slice, 1));
  }
  listener->OnClosed(script.status);
  return std::make_unique<PlayedStream>();
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

std::shared_ptr<const ClientCore> MakeCore(std::unique_ptr<Connection> connection,
                                           FakeTimer* timer) {
  return std::make_shared<ClientCore>(FleetFile(), nullptr, std::move(connection),
                                      FakePolicy(timer), absl::Minutes(1));
}

}  // namespace shardstep::internal
