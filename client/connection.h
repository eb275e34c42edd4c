// Connection: the calls that the SDK makes to a fleet. Everything above it is tested with a mock of
// it.
//
// One method per call, with the contract's own request (proto/shardstep/v1): new fields break no
// mock.
#ifndef SHARDSTEP_CLIENT_CONNECTION_H_
#define SHARDSTEP_CLIENT_CONNECTION_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/client/byte_stream.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/shards.pb.h"

namespace shardstep::internal {

// Thread-safe. Unary calls block, are repeated while their error is transient, and end at
// `deadline` (by Timer::Steady) at the latest. Then the error says who was tried, how often and how
// long; other errors are the server's own. Long polls (Propose, Step, OpenSnapshot, Checkpoint)
// return whatever the server answers at its own limit: the caller calls again.
class Connection {
 public:
  virtual ~Connection() = default;

  virtual int num_servers() const = 0;
  // Where the server is reached now: host:port.
  virtual std::string ServerAddress(int server_rank) const = 0;
  // "server 1 at 127.0.0.1:7401".
  std::string ServerName(int server_rank) const {
    return absl::StrCat("server ", server_rank, " at ", ServerAddress(server_rank));
  }

  // Coordinator.
  virtual absl::StatusOr<v1::OpenSessionReply> OpenSession(const v1::OpenSessionRequest& request,
                                                           absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::RenewSessionReply> RenewSession(const v1::RenewSessionRequest& request,
                                                             absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::CloseSessionReply> CloseSession(const v1::CloseSessionRequest& request,
                                                             absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::ProposeReply> Propose(const v1::ProposeRequest& request,
                                                   absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::DescribeReply> Describe(const v1::DescribeRequest& request,
                                                     absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::ListOptimizersReply> ListOptimizers(
      const v1::ListOptimizersRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::ListSessionsReply> ListSessions(const v1::ListSessionsRequest& request,
                                                             absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::StepReply> Step(const v1::StepRequest& request,
                                             absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::StepStatusReply> StepStatus(const v1::StepStatusRequest& request,
                                                         absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::OpenSnapshotReply> OpenSnapshot(const v1::OpenSnapshotRequest& request,
                                                             absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::RenewSnapshotReply> RenewSnapshot(
      const v1::RenewSnapshotRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::CloseSnapshotReply> CloseSnapshot(
      const v1::CloseSnapshotRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::CheckpointReply> Checkpoint(const v1::CheckpointRequest& request,
                                                         absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::ListCheckpointsReply> ListCheckpoints(
      const v1::ListCheckpointsRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::VerifyCheckpointReply> VerifyCheckpoint(
      const v1::VerifyCheckpointRequest& request, absl::Time deadline) = 0;

  // Any server.
  virtual absl::StatusOr<v1::HelloReply> Hello(int server_rank, const v1::HelloRequest& request,
                                               absl::Time deadline) = 0;

  // Streams are not repeated: a new one is started. `listener` must outlive the stream. A push has
  // no deadline; it runs on a connection of its own. A read has none that is its caller's, either:
  // who does not want to wait any longer destroys it. It ends when its listener is Complete; where
  // that is not to be asked, CloseSending makes it end with its answer.
  virtual std::unique_ptr<ByteStream> StartPush(int server_rank, StreamListener* listener) = 0;
  virtual std::unique_ptr<ByteStream> StartWrite(int server_rank, absl::Time deadline,
                                                 StreamListener* listener) = 0;
  virtual std::unique_ptr<ByteStream> StartRead(int server_rank,
                                                const v1::ReadStateRequest& request,
                                                StreamListener* listener) = 0;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_CONNECTION_H_
