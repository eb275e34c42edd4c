#include "shardstep/client/session.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {
namespace {

std::string RandomInstance() {
  std::random_device device;
  std::string instance;
  while (instance.size() < 16) instance.push_back(static_cast<char>(device()));
  return instance;
}

v1::CallHeader WithSession(v1::CallHeader header, uint64_t session) {
  header.set_session(session);
  return header;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Open(std::shared_ptr<const ClientCore> client,
                                                       const std::string& optimizer,
                                                       int trainer_rank,
                                                       std::vector<v1::DeclaredRegion> regions,
                                                       absl::Time deadline) {
  v1::OpenSessionRequest request;
  request.mutable_header()->set_optimizer(optimizer);
  request.set_trainer_rank(trainer_rank);
  request.set_instance(RandomInstance());
  for (v1::DeclaredRegion& region : regions) *request.add_regions() = std::move(region);
  SHARDSTEP_ASSIGN_OR_RETURN(v1::OpenSessionReply reply,
                             client->connection().OpenSession(request, deadline));
  return std::unique_ptr<Session>(
      new Session(std::move(client), std::move(request), std::move(reply)));
}

Session::Session(std::shared_ptr<const ClientCore> client, v1::OpenSessionRequest request,
                 v1::OpenSessionReply reply)
    : client_(std::move(client)),
      request_(std::move(request)),
      header_(WithSession(request_.header(), reply.session())),
      reply_(std::move(reply)) {
  const absl::Duration lease = absl::Milliseconds(reply_.lease_ms());
  lease_ = client_->leases().Keep(lease, [this, lease] {
    v1::RenewSessionRequest request;
    *request.mutable_header() = header_;
    // What cannot be renewed shows in the next call of the session itself.
    (void)client_->connection().RenewSession(
        request, client_->Now() + std::min(lease / 3, absl::Seconds(3)));
  });
}

absl::Status Session::Refresh(absl::Time deadline) {
  // The same instance gets the same session.
  SHARDSTEP_ASSIGN_OR_RETURN(v1::OpenSessionReply reply,
                             client_->connection().OpenSession(request_, deadline));
  if (reply.session() != reply_.session()) {
    return absl::InternalError(
        absl::StrCat("session ", reply_.session(), " was answered as ", reply.session()));
  }
  reply_ = std::move(reply);
  return absl::OkStatus();
}

Session::~Session() {
  lease_.reset();
  v1::CloseSessionRequest request;
  *request.mutable_header() = header_;
  // Without an answer the lease ends it.
  (void)client_->connection().CloseSession(request, client_->Now() + absl::Seconds(2));
}

}  // namespace shardstep::internal
