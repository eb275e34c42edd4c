// RawTrainer: a trainer on the generated stubs, as one in another language would be: it sends what
// a test wants it to, wrong or twice.
#ifndef SHARDSTEP_TESTS_RAW_TRAINER_H_
#define SHARDSTEP_TESTS_RAW_TRAINER_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/v1/coordinator.grpc.pb.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/v1/shards.grpc.pb.h"
#include "shardstep/wire/optimizer_definition.h"
#include "shardstep/wire/status.h"

namespace shardstep {

// One unary call: Call(stub, &v1::Coordinator::Stub::Step, request).
template <typename Stub, typename Request, typename Reply>
absl::StatusOr<Reply> Call(Stub& stub,
                           grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                        Reply*),
                           const Request& request, absl::Duration timeout = absl::Seconds(20)) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout));
  Reply reply;
  const absl::Status status = FromGrpcStatus((stub.*method)(&context, request, &reply));
  if (!status.ok()) return status;
  return reply;
}

// A frame with its checksum.
v1::Frame MakeFrame(const v1::FrameHeader& header, std::string payload = "");

class RawTrainer {
 public:
  RawTrainer(const MiniFleet& fleet, std::string optimizer, int trainer_rank, std::string instance);

  // Of the fleet's servers; coordinator() is server 0's.
  v1::Coordinator::Stub& coordinator() { return *coordinator_; }
  v1::Shards::Stub& shards(int server) { return *shards_[server]; }
  const std::shared_ptr<grpc::Channel>& channel(int server) { return channels_[server]; }

  // Makes this trainer the live session of its trainer rank, and reads the optimizer's plan if
  // there is one.
  absl::Status Open();
  uint64_t session() const { return session_; }
  const OptimizerDescription& description() const { return description_; }

  // Of a call of this session.
  v1::CallHeader Header(uint64_t sequence = 0) const;

  // What makes up push `sequence` on `server`: Begin, a frame for each shard there, End. All
  // elements of a named parameter (of float32) have the one value.
  std::vector<v1::Frame> PushFrames(int server, uint64_t sequence,
                                    const std::map<std::string, float>& values) const;
  // Sends them on a stream of its own. The acknowledgement's status, or the stream's if it ended
  // without one.
  absl::Status SendPush(int server, const std::vector<v1::Frame>& frames);
  // Both, to every server.
  absl::Status Push(uint64_t sequence, const std::map<std::string, float>& values);

  // A Step that consumes pushes [first, last]. Calls are numbered by `sequence`.
  v1::StepRequest MakeStep(uint64_t sequence, uint64_t first, uint64_t last) const;
  absl::StatusOr<v1::StepReply> Step(const v1::StepRequest& request,
                                     absl::Duration timeout = absl::Seconds(20));

 private:
  absl::Status Describe();

  const std::string optimizer_;
  const int trainer_rank_;
  const std::string instance_;
  std::unique_ptr<v1::Coordinator::Stub> coordinator_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<v1::Shards::Stub>> shards_;
  uint64_t session_ = 0;
  OptimizerDescription description_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_RAW_TRAINER_H_
