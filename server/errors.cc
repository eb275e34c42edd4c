#include "shardstep/server/errors.h"

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/nearest_name.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

v1::ErrorDetail DetailOf(const OptimizerFacts& facts, v1::Reason reason) {
  v1::ErrorDetail detail;
  detail.set_reason(reason);
  detail.set_optimizer(facts.name);
  detail.set_version(facts.version);
  detail.set_lineage(facts.lineage);
  detail.set_incarnation(facts.incarnation);
  detail.set_plan_id(facts.plan_id);
  detail.set_server_rank(-1);
  return detail;
}

}  // namespace

absl::Status NoSuchOptimizer(absl::string_view name, const std::vector<std::string>& candidates) {
  std::string message = absl::StrCat("optimizer \"", name, "\": not on this fleet");
  const std::string nearest = NearestName(name, candidates);
  if (!nearest.empty()) absl::StrAppend(&message, "; did you mean \"", nearest, "\"");
  OptimizerFacts facts;
  facts.name = std::string(name);
  return OptimizerError(facts, absl::StatusCode::kNotFound, v1::NO_OPTIMIZER, message);
}

absl::Status ShardsLost(const OptimizerFacts& facts, int server, absl::string_view because) {
  v1::ErrorDetail detail = DetailOf(facts, v1::SHARDS_LOST);
  detail.set_server_rank(server);
  const std::string remedy =
      facts.last_checkpoint.empty()
          ? absl::StrCat("there is no checkpoint: shardctl delete ", facts.name, " --yes")
          : absl::StrCat("last checkpoint \"", facts.last_checkpoint, "\": shardctl restore ",
                         facts.name, " --id ", facts.last_checkpoint);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("optimizer \"", facts.name, "\": server ", server,
                                " restarted and lost its shards at version ", facts.version,
                                because.empty() ? "" : ": ", because, "; ", remedy),
                   detail);
}

absl::Status Fenced(const OptimizerFacts& facts, uint64_t session, absl::string_view why) {
  return OptimizerError(
      facts, absl::StatusCode::kFailedPrecondition, v1::FENCED,
      absl::StrCat("optimizer \"", facts.name, "\": session ", session, " ", why));
}

absl::Status OptimizerError(const OptimizerFacts& facts, absl::StatusCode code, v1::Reason reason,
                            absl::string_view message) {
  return MakeError(code, std::string(message), DetailOf(facts, reason));
}

absl::Status CheckBeliefs(const v1::CallHeader& header, const OptimizerFacts& facts) {
  const auto differs = [&](v1::Reason reason, absl::string_view what, const auto& got,
                           const auto& current) {
    return OptimizerError(facts, absl::StatusCode::kFailedPrecondition, reason,
                          absl::StrCat("optimizer \"", facts.name, "\": ", what, " ", got,
                                       ", the current one is ", current));
  };
  if (header.incarnation() != 0 && header.incarnation() != facts.incarnation) {
    return differs(v1::INCARNATION, "server incarnation", header.incarnation(), facts.incarnation);
  }
  if (header.lineage() != 0 && header.lineage() != facts.lineage) {
    return differs(v1::ROLLED_BACK, "lineage", header.lineage(), facts.lineage);
  }
  if (!header.plan_id().empty() && header.plan_id() != facts.plan_id) {
    return differs(v1::PLAN_CHANGED, "plan", header.plan_id(), facts.plan_id);
  }
  return absl::OkStatus();
}

}  // namespace shardstep
