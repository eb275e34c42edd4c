// Pusher: a trainer one level below ShardedOptimizer, whose Step alone waits for acknowledgements:
// here pushes, their acknowledgements and steps can be timed apart.
#ifndef SHARDSTEP_TESTS_BENCH_PUSHER_H_
#define SHARDSTEP_TESTS_BENCH_PUSHER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/named_tensor.h"
#include "shardstep/client/pushes.h"
#include "shardstep/client/session.h"

namespace shardstep {

// Used by one thread. All methods block, Push only where the connection does not take more. Tensors
// are borrowed until Await or Step has dropped their push.
class Pusher {
 public:
  // A session of `trainer_rank` on an optimizer that exists, with connections of its own.
  static absl::StatusOr<std::unique_ptr<Pusher>> Make(const std::string& fleet_file,
                                                      const std::string& optimizer,
                                                      int trainer_rank);

  // Sends the tensors [first, last) as one push.
  absl::Status Push(const std::vector<NamedTensor>& tensors, size_t first, size_t last);
  // Until at most `open` pushes are not acknowledged.
  absl::Status AwaitAcks(uint64_t open);
  // Until at most `open` pushes are not acknowledged; gives up those that are.
  absl::Status DropAcknowledged(uint64_t open);
  // One step with the newest push alone.
  absl::Status Step();

 private:
  Pusher() = default;

  std::shared_ptr<internal::ClientCore> core_;
  std::unique_ptr<internal::Session> session_;
  std::unique_ptr<internal::Pushes> pushes_;
  uint64_t calls_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_PUSHER_H_
