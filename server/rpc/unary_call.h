// UnaryCall: one typed call on gRPC's callback API, answered once, by whoever comes first: the core
// or the cancellation.
#ifndef SHARDSTEP_SERVER_RPC_UNARY_CALL_H_
#define SHARDSTEP_SERVER_RPC_UNARY_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/wire/status.h"

namespace shardstep {

// Thread-safe. Lives until gRPC has done with it and nobody holds it any more.
template <typename Response>
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  // `response` is the one that gRPC gave to the handler.
  static std::shared_ptr<UnaryCall> Make(Response* response) {
    std::shared_ptr<UnaryCall> call(new UnaryCall(response));
    call->self_ = call;
    return call;
  }

  // Only the first answer counts. Does not block.
  void Answer(absl::StatusOr<Response> answer) {
    if (answered_.exchange(true)) return;
    const grpc::Status status = ToGrpcStatus(answer.status());
    if (answer.ok()) *response_ = *std::move(answer);
    Finish(status);
  }

  // Whether an answer would reach nobody.
  bool gone() const { return gone_.load(std::memory_order_relaxed); }

 private:
  explicit UnaryCall(Response* response) : response_(response) {}

  void OnCancel() override {
    gone_.store(true, std::memory_order_relaxed);
    Answer(absl::CancelledError("the call was cancelled"));
  }
  void OnDone() override { const std::shared_ptr<UnaryCall> last = std::move(self_); }

  Response* const response_;
  std::shared_ptr<UnaryCall> self_;
  std::atomic<bool> answered_{false};
  std::atomic<bool> gone_{false};
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_UNARY_CALL_H_
