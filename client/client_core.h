// What the handles of one client share: the connection, how calls are repeated, and who renews
// leases.
#ifndef SHARDSTEP_CLIENT_CLIENT_CORE_H_
#define SHARDSTEP_CLIENT_CLIENT_CORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shardstep/client/connection.h"
#include "shardstep/client/lease_keeper.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/retry.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep::internal {

// Thread-safe: the members never change, and each is thread-safe itself.
class ClientCore {
 public:
  // `policy.budget` is set to the core's own.
  ClientCore(FleetFile fleet, std::unique_ptr<RetryBudget> budget,
             std::unique_ptr<Connection> connection, RetryPolicy policy,
             absl::Duration call_timeout)
      : fleet_(std::move(fleet)),
        budget_(std::move(budget)),
        connection_(std::move(connection)),
        policy_(std::move(policy)),
        call_timeout_(call_timeout) {}

  const FleetFile& fleet() const { return fleet_; }
  Connection& connection() const { return *connection_; }
  const RetryPolicy& policy() const { return policy_; }
  LeaseKeeper& leases() const { return leases_; }
  absl::Time Now() const { return policy_.timer->Now(); }
  // Of a call that begins now and has no other limit.
  absl::Time CallDeadline() const { return Now() + call_timeout_; }

 private:
  const FleetFile fleet_;
  const std::unique_ptr<RetryBudget> budget_;
  const std::unique_ptr<Connection> connection_;
  const RetryPolicy policy_;
  const absl::Duration call_timeout_;
  mutable LeaseKeeper leases_;
};

struct DescribedOptimizer {
  OptimizerDescription description;
  uint64_t version = 0;
  uint64_t durable_version = 0;
  uint64_t lineage = 0;
  // By trainer rank; of a snapshot of everything only.
  std::map<int, std::string> trainer_states;
};

// All pages of Describe. `header` names the optimizer; `staging` 0 = the live one.
absl::StatusOr<DescribedOptimizer> DescribeOptimizer(const ClientCore& client,
                                                     const v1::CallHeader& header, uint64_t staging,
                                                     absl::Time deadline);
// The same of a snapshot: as the optimizer was at its version.
absl::StatusOr<DescribedOptimizer> DescribeSnapshot(const ClientCore& client,
                                                    const v1::CallHeader& header, uint64_t snapshot,
                                                    absl::Time deadline);

// A header that names the optimizer alone.
v1::CallHeader HeaderFor(absl::string_view optimizer);
// The same with a new request id, for what is proposed outside a session.
v1::CallHeader OperatorHeaderFor(absl::string_view optimizer);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_CLIENT_CORE_H_
