#include "shardstep/client/client_core.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"

namespace shardstep::internal {
namespace {

absl::StatusOr<DescribedOptimizer> Describe(const ClientCore& client, v1::DescribeRequest request,
                                            absl::Time deadline) {
  const v1::CallHeader& header = request.header();
  v1::DescribeReply reply;
  PageCollector pages;
  while (!pages.complete()) {
    request.set_page(pages.next());
    SHARDSTEP_ASSIGN_OR_RETURN(reply, client.connection().Describe(request, deadline));
    if (!pages.digest().empty() && reply.description().digest() != pages.digest()) {
      // Options were set between two pages: begin again with what holds now.
      pages = PageCollector();
      if (client.Now() >= deadline) {
        return absl::UnavailableError(absl::StrCat("optimizer \"", header.optimizer(),
                                                   "\" changes faster than it can be described"));
      }
      continue;
    }
    const uint32_t had = pages.next();
    SHARDSTEP_RETURN_IF_ERROR(pages.Add(reply.description()));
    if (pages.next() == had)
      return absl::DataLossError("Describe answered another page than the one asked for");
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string serialized, pages.Take());
  v1::Description description;
  if (!description.ParseFromString(serialized)) {
    return absl::DataLossError("Describe answered what is no Description");
  }
  DescribedOptimizer described;
  SHARDSTEP_ASSIGN_OR_RETURN(described.description, DescriptionFromProto(description));
  const int num_servers = client.connection().num_servers();
  for (const PlannedShard& shard : described.description.plan.shards) {
    if (shard.metadata.placement.server_rank < num_servers) continue;
    return absl::InternalError(
        absl::StrCat("the plan of \"", header.optimizer(), "\" names server ",
                     shard.metadata.placement.server_rank, ", the fleet has ", num_servers));
  }
  described.version = reply.version();
  described.durable_version = reply.durable_version();
  described.lineage = reply.lineage();
  for (v1::TrainerState& trainer : *description.mutable_trainers()) {
    described.trainer_states[trainer.trainer_rank()] = std::move(*trainer.mutable_state());
  }
  return described;
}

}  // namespace

absl::StatusOr<DescribedOptimizer> DescribeOptimizer(const ClientCore& client,
                                                     const v1::CallHeader& header, uint64_t staging,
                                                     absl::Time deadline) {
  v1::DescribeRequest request;
  *request.mutable_header() = header;
  request.set_staging(staging);
  return Describe(client, std::move(request), deadline);
}

absl::StatusOr<DescribedOptimizer> DescribeSnapshot(const ClientCore& client,
                                                    const v1::CallHeader& header, uint64_t snapshot,
                                                    absl::Time deadline) {
  v1::DescribeRequest request;
  *request.mutable_header() = header;
  request.set_snapshot(snapshot);
  return Describe(client, std::move(request), deadline);
}

v1::CallHeader HeaderFor(absl::string_view optimizer) {
  v1::CallHeader header;
  header.set_optimizer(std::string(optimizer));
  return header;
}

v1::CallHeader OperatorHeaderFor(absl::string_view optimizer) {
  v1::CallHeader header = HeaderFor(optimizer);
  std::random_device device;
  for (int i = 0; i < 4; ++i) {
    absl::StrAppend(header.mutable_request_id(), absl::Hex(device(), absl::kZeroPad8));
  }
  return header;
}

}  // namespace shardstep::internal
