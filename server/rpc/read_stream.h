// ReadStream: one ReadState call: one read after the other, each the frames of a ReadPlan.
#ifndef SHARDSTEP_SERVER_RPC_READ_STREAM_H_
#define SHARDSTEP_SERVER_RPC_READ_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/server/held_version.h"
#include "shardstep/server/rpc/open_streams.h"
#include "shardstep/server/rpc/read_plan.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/shards.pb.h"

namespace shardstep {

// Made by std::make_shared and given to an OpenStreams, which owns it until gRPC has done with it;
// then Start(). A single chain of requests, continuations and writes, one at a time; only Close
// comes from elsewhere. Nothing is held between two reads. A cancelled call ends its chain by a
// read or a write that fails. What gRPC has not sent yet lies in the held version's memory or the
// frame's own, which outlive call and server until then.
class ReadStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                         public OpenStream {
 public:
  // `state` must outlive it.
  explicit ReadStream(ServerState* state) : state_(state) {}

  void Start(const grpc::CallbackServerContext& context);
  // A read that is under way is finished first.
  void Close(const absl::Status& status) override;

 private:
  // What frames on their way refer to. The node has the budget that the version's memory is counted
  // in.
  struct Source {
    std::shared_ptr<Node> node;
    std::shared_ptr<const HeldVersion> held;
  };

  void AwaitRequest();
  absl::Status Open();
  absl::Status OnOpened(absl::StatusOr<std::shared_ptr<const HeldVersion>> held);
  void WriteNext();
  void FinishWith(const absl::Status& status);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override { state_->streams().Remove(this); }

  ServerState* const state_;

  // Of the read under way.
  grpc::ByteBuffer incoming_;
  v1::ReadStateRequest request_;
  std::shared_ptr<Source> source_;
  std::optional<ReadPlan> plan_;
  grpc::ByteBuffer outgoing_;

  Mutex mutex_;
  bool idle_ ABSL_GUARDED_BY(mutex_) = false;  // the next request is awaited
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> closing_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_READ_STREAM_H_
