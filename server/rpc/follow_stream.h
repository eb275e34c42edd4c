// FollowStream: one attempt of a coordinator's message stream to another server
// (proto/shardstep/v1/peer.proto).
#ifndef SHARDSTEP_SERVER_RPC_FOLLOW_STREAM_H_
#define SHARDSTEP_SERVER_RPC_FOLLOW_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/server/rpc/paged_messages.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/peer.grpc.pb.h"

namespace shardstep {

// Thread-safe; only the destructor blocks.
class FollowStream final : public grpc::ClientBidiReactor<v1::PeerMessage, v1::PeerReply> {
 public:
  // Both are called from gRPC's threads and must not block: `on_replies`, with what arrived
  // together, one after the other, then `on_end` once.
  struct Events {
    std::function<void(std::vector<v1::PeerReply>)> on_replies;
    std::function<void(const absl::Status&)> on_end;
  };

  // Messages may be sent before Start, which must follow.
  FollowStream(std::shared_ptr<v1::Peer::Stub> stub, Events events);
  // Waits until on_end has returned, so it must not run in a callback of gRPC; nor must it for the
  // reason that the channel may go with it, which joins gRPC's threads.
  ~FollowStream();
  void Start();

  // They go out together, as far as they fit. Dropped once the stream is broken.
  void Send(std::vector<v1::PeerMessage> messages);
  // Ends the stream; on_end follows.
  void Cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;
  // Nothing is sent any more.
  void Break();

  const std::shared_ptr<v1::Peer::Stub> stub_;
  const Events events_;
  grpc::ClientContext context_;
  v1::PeerReply incoming_;
  PagedReader<v1::PeerReply> reader_;
  v1::PeerMessage outgoing_;  // of the one write under way

  // gRPC's hold on the stream, which permits to start writes, is released when both are past:
  // broken_ and not writing_.
  Mutex mutex_;
  CondVar done_changed_;
  std::deque<v1::PeerMessage> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_FOLLOW_STREAM_H_
