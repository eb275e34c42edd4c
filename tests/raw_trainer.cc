#include "shardstep/tests/raw_trainer.h"

#include <grpcpp/create_channel.h>

#include <cstring>
#include <utility>

#include "absl/strings/string_view.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/rich_status.h"
#include "shardstep/wire/transport.h"

namespace shardstep {

v1::Frame MakeFrame(const v1::FrameHeader& header, std::string payload) {
  v1::Frame frame;
  *frame.mutable_header() = header;
  frame.set_crc32c(Crc32c(header.SerializeAsString() + payload));
  frame.set_payload(std::move(payload));
  return frame;
}

RawTrainer::RawTrainer(const MiniFleet& fleet, std::string optimizer, int trainer_rank,
                       std::string instance)
    : optimizer_(std::move(optimizer)),
      trainer_rank_(trainer_rank),
      instance_(std::move(instance)) {
  for (int server = 0; server < fleet.options().servers; ++server) {
    channels_.push_back(grpc::CreateCustomChannel(fleet.address(server), ClientCredentials(),
                                                  MakeChannelArguments()));
    shards_.push_back(v1::Shards::NewStub(channels_.back()));
  }
  coordinator_ = v1::Coordinator::NewStub(channels_[0]);
}

absl::Status RawTrainer::Open() {
  v1::OpenSessionRequest request;
  request.mutable_header()->set_optimizer(optimizer_);
  request.set_trainer_rank(trainer_rank_);
  request.set_instance(instance_);
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::OpenSessionReply reply,
                             Call(*coordinator_, &v1::Coordinator::Stub::OpenSession, request));
  session_ = reply.session();
  return reply.lineage() == 0 ? absl::OkStatus() : Describe();
}

absl::Status RawTrainer::Describe() {
  v1::DescribeRequest request;
  *request.mutable_header() = Header();
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::DescribeReply reply,
                             Call(*coordinator_, &v1::Coordinator::Stub::Describe, request));
  v1::Description description;
  if (reply.description().count() != 1 ||
      !description.ParseFromString(reply.description().data())) {
    return absl::InternalError("expected a description of one page");
  }
  SHARDSTEP_ASSIGN_OR_RETURN(description_, DescriptionFromProto(description));
  return absl::OkStatus();
}

v1::CallHeader RawTrainer::Header(uint64_t sequence) const {
  v1::CallHeader header;
  header.set_optimizer(optimizer_);
  header.set_session(session_);
  header.set_sequence(sequence);
  return header;
}

std::vector<v1::Frame> RawTrainer::PushFrames(int server, uint64_t sequence,
                                              const std::map<std::string, float>& values) const {
  const std::vector<ParameterShape>& parameters = description_.definition.parameters;
  v1::FrameHeader begin;
  *begin.mutable_begin()->mutable_header() = Header(sequence);
  begin.mutable_begin()->set_weight(1);
  std::vector<v1::Frame> frames = {MakeFrame(begin)};
  FrameDigest digest;
  for (size_t shard = 0; shard < description_.plan.shards.size(); ++shard) {
    const PlannedShard& planned = description_.plan.shards[shard];
    const auto value = values.find(parameters[planned.parameter].name);
    if (planned.metadata.placement.server_rank != server || value == values.end()) continue;
    const int64_t elements = NumElements(planned.metadata.sizes).value();
    v1::FrameHeader header;
    v1::Slice* const slice = header.mutable_slices()->add_slices();
    slice->set_shard(shard);
    slice->set_count(elements);
    slice->set_dtype(v1::FLOAT32);
    std::string payload(elements * sizeof(float), '\0');
    for (int64_t i = 0; i < elements; ++i) {
      std::memcpy(&payload[i * sizeof(float)], &value->second, sizeof(float));
    }
    frames.push_back(MakeFrame(header, std::move(payload)));
    digest.Add(frames.back().crc32c());
  }
  v1::FrameHeader end;
  std::string touched((parameters.size() + 7) / 8, '\0');
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (values.count(parameters[i].name) > 0) touched[i / 8] |= 1 << (i % 8);
  }
  end.mutable_end()->set_frames(frames.size() - 1);
  end.mutable_end()->set_digest(digest.value());
  end.mutable_end()->set_touched(touched);
  frames.push_back(MakeFrame(end));
  return frames;
}

absl::Status RawTrainer::SendPush(int server, const std::vector<v1::Frame>& frames) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  const auto stream = shards_[server]->PushGradients(&context);
  for (const v1::Frame& frame : frames) {
    if (!stream->Write(frame)) break;
  }
  stream->WritesDone();
  v1::PushAck ack;
  const bool acknowledged = stream->Read(&ack);
  v1::PushAck more;
  while (stream->Read(&more)) {
  }
  const absl::Status ended = FromGrpcStatus(stream->Finish());
  if (acknowledged) return FromRichStatus(ack.status());
  return ended.ok() ? absl::InternalError("the stream ended without an acknowledgement") : ended;
}

absl::Status RawTrainer::Push(uint64_t sequence, const std::map<std::string, float>& values) {
  for (size_t server = 0; server < shards_.size(); ++server) {
    const int rank = static_cast<int>(server);
    SHARDSTEP_RETURN_IF_ERROR(SendPush(rank, PushFrames(rank, sequence, values)));
  }
  return absl::OkStatus();
}

v1::StepRequest RawTrainer::MakeStep(uint64_t sequence, uint64_t first, uint64_t last) const {
  v1::StepRequest request;
  *request.mutable_header() = Header(sequence);
  request.set_first_push(first);
  request.set_last_push(last);
  return request;
}

absl::StatusOr<v1::StepReply> RawTrainer::Step(const v1::StepRequest& request,
                                               absl::Duration timeout) {
  return Call(*coordinator_, &v1::Coordinator::Stub::Step, request, timeout);
}

}  // namespace shardstep
