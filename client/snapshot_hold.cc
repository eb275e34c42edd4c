#include "shardstep/client/snapshot_hold.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "shardstep/client/retry.h"

namespace shardstep::internal {
namespace {

// A coordinator that answers "not yet" at once is not asked more often than so.
constexpr absl::Duration kPollInterval = absl::Milliseconds(20);
constexpr absl::Duration kClosePatience = absl::Seconds(1);

// A snapshot is what it is, whatever became of the optimizer since: only opening one asks for a
// lineage.
v1::CallHeader WithoutLineage(v1::CallHeader header) {
  header.clear_lineage();
  return header;
}

}  // namespace

absl::StatusOr<std::shared_ptr<SnapshotHold>> SnapshotHold::Open(
    std::shared_ptr<const ClientCore> client, const v1::CallHeader& header, v1::SnapshotKind kind,
    uint64_t at_least, absl::Time deadline) {
  v1::OpenSnapshotRequest request;
  *request.mutable_header() = header;
  request.set_at_least_version(at_least);
  request.set_kind(kind);
  const absl::Time started = client->Now();
  std::optional<uint64_t> current;
  while (true) {
    const absl::Time asked = client->Now();
    const absl::StatusOr<v1::OpenSnapshotReply> reply =
        client->connection().OpenSnapshot(request, deadline);
    const absl::Time now = client->Now();
    if (reply.ok()) {
      if (reply->has_snapshot()) {
        return std::make_shared<SnapshotHold>(std::move(client), WithoutLineage(header),
                                              reply->snapshot());
      }
      current = reply->current_version();
    } else if (now < deadline || !current || !IsTransient(reply.status())) {
      return reply.status();  // else the last call had no time left for an answer
    }
    if (now >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("pull of \"", header.optimizer(), "\": waited ", Seconds(now - started),
                       " for version ", at_least, ", the current one is ", *current));
    }
    client->policy().timer->SleepFor(std::min(kPollInterval - (now - asked), deadline - now));
  }
}

SnapshotHold::~SnapshotHold() {
  if (!open_) return;
  v1::CloseSnapshotRequest request;
  *request.mutable_header() = header_;
  request.set_snapshot(snapshot_.snapshot());
  // Without an answer its lease ends it.
  (void)client_->connection().CloseSnapshot(request, client_->Now() + kClosePatience);
}

std::unique_ptr<LeaseKeeper::Lease> SnapshotHold::KeepAlive() const {
  const absl::Duration lease = absl::Milliseconds(snapshot_.lease_ms());
  return client_->leases().Keep(lease, [this, lease] {
    v1::RenewSnapshotRequest renew;
    *renew.mutable_header() = header_;
    renew.set_snapshot(snapshot_.snapshot());
    // A lease that ends shows in the read.
    (void)client_->connection().RenewSnapshot(renew, client_->Now() + lease / 3);
  });
}

}  // namespace shardstep::internal
