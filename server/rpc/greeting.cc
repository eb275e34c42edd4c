#include "shardstep/server/rpc/greeting.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/v1/common.pb.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

absl::Status Mismatch(int server_rank, std::string message) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::FLEET_MISMATCH);
  detail.set_server_rank(server_rank);
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(message), detail);
}

}  // namespace

absl::Status CheckFleet(const FleetFile& fleet, const std::string& hash, const std::string& summary,
                        int server_rank) {
  if (hash == fleet.Hash()) return absl::OkStatus();
  return Mismatch(server_rank, absl::StrCat("server ", server_rank, " belongs to another fleet: ",
                                            fleet.Summary(), "; the caller's is ", summary));
}

absl::Status CheckServerRank(int expected, int server_rank) {
  if (expected == server_rank) return absl::OkStatus();
  return Mismatch(server_rank,
                  absl::StrCat("server ", server_rank, " answers here, expected server ", expected,
                               "; read the fleet file again"));
}

}  // namespace shardstep
