#include "shardstep/server/rpc/server_state.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/wire/deadline.h"

namespace shardstep {

ServerState::ServerState(ServerIdentity identity, const Clock* clock)
    : identity_(std::move(identity)),
      clock_(clock),
      not_serving_(absl::UnavailableError(
          absl::StrCat("server ", identity_.server_rank, " waits for its fleet file"))) {}

absl::StatusOr<std::shared_ptr<Node>> ServerState::Serving() const {
  MutexLock lock(&mutex_);
  if (!not_serving_.ok()) return not_serving_;
  return node_;
}

std::shared_ptr<const FleetFile> ServerState::fleet() const {
  MutexLock lock(&mutex_);
  return fleet_;
}

void ServerState::StillWaiting(const absl::Status& why) {
  MutexLock lock(&mutex_);
  not_serving_ = absl::UnavailableError(
      absl::StrCat("server ", identity_.server_rank, " waits for its fleet file: ", why.message()));
}

void ServerState::Serve(FleetFile fleet, std::shared_ptr<Node> node) {
  MutexLock lock(&mutex_);
  not_serving_ = absl::OkStatus();
  node_ = std::move(node);
  fleet_ = std::make_shared<const FleetFile>(std::move(fleet));
}

void ServerState::StopServing() {
  MutexLock lock(&mutex_);
  not_serving_ =
      absl::UnavailableError(absl::StrCat("server ", identity_.server_rank, " is shutting down"));
}

absl::Status CheckDeadline(absl::string_view call, const grpc::CallbackServerContext& context) {
  return CheckDeadline(call, absl::FromChrono(context.deadline()), absl::Now());
}

}  // namespace shardstep
