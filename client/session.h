// Session: being a trainer rank of an optimizer, from opening to destruction.
#ifndef SHARDSTEP_CLIENT_SESSION_H_
#define SHARDSTEP_CLIENT_SESSION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/lease_keeper.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// Its lease is renewed in the background. Thread-safe, except for Refresh.
class Session {
 public:
  // Blocks. `regions`: what this session gives and receives of ShardedTensors.
  static absl::StatusOr<std::unique_ptr<Session>> Open(std::shared_ptr<const ClientCore> client,
                                                       const std::string& optimizer,
                                                       int trainer_rank,
                                                       std::vector<v1::DeclaredRegion> regions,
                                                       absl::Time deadline);
  // Closes the session; gives the coordinator two seconds for it.
  ~Session();

  int trainer_rank() const { return request_.trainer_rank(); }
  uint64_t number() const { return reply_.session(); }
  // As of Open, or of the last Refresh: the trainer rank's last committed step, and the trainer
  // state that it carried or that was loaded since.
  const v1::OpenSessionReply& opened() const { return reply_; }
  // Asks again. Blocks.
  absl::Status Refresh(absl::Time deadline);
  // With optimizer and session.
  const v1::CallHeader& header() const { return header_; }

 private:
  Session(std::shared_ptr<const ClientCore> client, v1::OpenSessionRequest request,
          v1::OpenSessionReply reply);

  const std::shared_ptr<const ClientCore> client_;
  const v1::OpenSessionRequest request_;
  const v1::CallHeader header_;
  v1::OpenSessionReply reply_;
  std::unique_ptr<LeaseKeeper::Lease> lease_;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_SESSION_H_
