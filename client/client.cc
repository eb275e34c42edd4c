#include "shardstep/client/client.h"

#include <sys/stat.h>

#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/client/change_proposal.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/creation.h"
#include "shardstep/client/grpc_connection.h"
#include "shardstep/client/optimizer_core.h"
#include "shardstep/client/pull_core.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {
namespace {

bool NamesFile(const std::string& fleet) {
  struct stat info;
  return absl::EndsWith(fleet, ".json") || absl::StrContains(fleet, '/') ||
         ::stat(fleet.c_str(), &info) == 0;
}

// One server's answer to Hello.
absl::StatusOr<v1::HelloReply> Greet(const internal::ClientCore& core, int server_rank,
                                     absl::Time deadline) {
  v1::HelloRequest request;
  request.set_fleet_hash(core.fleet().Hash());
  request.set_fleet_summary(core.fleet().Summary());
  request.set_server_rank(server_rank);
  return core.connection().Hello(server_rank, request, deadline);
}

// Blocks until the server is there and serves.
absl::Status AwaitServing(const internal::ClientCore& core, int server_rank, absl::Time deadline) {
  internal::Retry retry(core.policy(), deadline);
  while (true) {
    SHARDSTEP_ASSIGN_OR_RETURN(const v1::HelloReply reply, Greet(core, server_rank, deadline));
    if (reply.server_rank() != server_rank) {
      return absl::FailedPreconditionError(absl::StrCat(core.connection().ServerName(server_rank),
                                                        " is server ", reply.server_rank(),
                                                        " of its fleet"));
    }
    if (reply.serving()) return absl::OkStatus();
    const absl::Status waits = absl::UnavailableError("not serving yet");
    if (!retry.Again(waits)) {
      return retry.Explain(core.connection().ServerName(server_rank), waits);
    }
  }
}

ServerStatus ToServerStatus(const absl::StatusOr<v1::HelloReply>& reply) {
  ServerStatus status;
  status.status = reply.status();
  if (!reply.ok()) return status;
  status.serving = reply->serving();
  status.incarnation = reply->incarnation();
  status.version = reply->version();
  status.numeric_fingerprint = reply->numeric_fingerprint();
  status.shard_bytes = reply->shard_bytes();
  status.push_bytes = reply->push_bytes();
  status.snapshot_bytes = reply->snapshot_bytes();
  return status;
}

}  // namespace

absl::StatusOr<Client> Client::Connect(absl::string_view fleet, const ClientOptions& options) {
  internal::RetryPolicy policy;
  auto budget = std::make_unique<internal::RetryBudget>();
  policy.budget = budget.get();
  policy.longest_backoff = options.longest_backoff;
  const absl::Time deadline = policy.timer->Now() + options.connect_timeout;

  const std::string name(fleet);
  const bool is_file = NamesFile(name);
  absl::StatusOr<FleetFile> described =
      is_file ? FleetFile::Load(name) : internal::AskForFleet(name, policy, deadline);
  SHARDSTEP_RETURN_IF_ERROR(described.status());
  std::unique_ptr<internal::Connection> connection =
      internal::MakeGrpcConnection(*described, is_file ? name : "", policy);
  const auto core =
      std::make_shared<internal::ClientCore>(*std::move(described), std::move(budget),
                                             std::move(connection), policy, options.call_timeout);
  if (options.connect_timeout > absl::ZeroDuration()) {
    for (int rank = 0; rank < core->connection().num_servers(); ++rank) {
      SHARDSTEP_RETURN_IF_ERROR(AwaitServing(*core, rank, deadline));
    }
  }
  return Client(core);
}

Client::Client(std::shared_ptr<internal::ClientCore> core) : core_(std::move(core)) {}

absl::StatusOr<ShardedOptimizer> Client::CreateOptimizer(absl::string_view name,
                                                         const std::vector<NamedTensor>& parameters,
                                                         const OptimizerOptions& optimizer,
                                                         Mode mode, int trainer_rank,
                                                         const CreateOptions& options) {
  ParameterGroup group;
  group.parameters = parameters;
  return CreateOptimizer(name, std::vector<ParameterGroup>{std::move(group)}, optimizer, mode,
                         trainer_rank, options);
}

absl::StatusOr<ShardedOptimizer> Client::CreateOptimizer(absl::string_view name,
                                                         const std::vector<ParameterGroup>& groups,
                                                         const OptimizerOptions& optimizer,
                                                         Mode mode, int trainer_rank,
                                                         const CreateOptions& options) {
  SHARDSTEP_ASSIGN_OR_RETURN(
      const internal::Proposal proposal,
      internal::MakeProposal(std::string(name), groups, optimizer, mode, trainer_rank,
                             core_->connection().num_servers()));
  SHARDSTEP_ASSIGN_OR_RETURN(
      std::unique_ptr<internal::OptimizerCore> core,
      internal::CreateOnFleet(core_, proposal, trainer_rank, core_->Now() + options.timeout));
  return ShardedOptimizer(std::move(core));
}

absl::StatusOr<OptimizerReader> Client::OpenReader(absl::string_view name) {
  SHARDSTEP_ASSIGN_OR_RETURN(internal::DescribedOptimizer described,
                             internal::DescribeOptimizer(*core_, internal::HeaderFor(name),
                                                         /*staging=*/0, core_->CallDeadline()));
  return OptimizerReader(std::make_unique<internal::PullCore>(
      core_, internal::HeaderFor(name),
      std::make_shared<const internal::OptimizerIndex>(std::move(described.description))));
}

absl::StatusOr<std::vector<OptimizerSummary>> Client::ListOptimizers() {
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::ListOptimizersReply reply,
                             core_->connection().ListOptimizers({}, core_->CallDeadline()));
  std::vector<OptimizerSummary> optimizers;
  for (const v1::ListOptimizersReply::Optimizer& listed : reply.optimizers()) {
    OptimizerSummary& optimizer = optimizers.emplace_back();
    optimizer.name = listed.name();
    optimizer.kind = listed.kind();
    optimizer.version = listed.version();
    optimizer.durable_version = listed.durable_version();
    optimizer.lineage = listed.lineage();
    optimizer.parameters = listed.parameters();
    optimizer.elements = listed.elements();
    optimizer.shards = listed.shards();
    optimizer.state = listed.state();
    if (!listed.has_mode()) continue;
    SHARDSTEP_ASSIGN_OR_RETURN(optimizer.mode, ModeFromProto(listed.mode()));
  }
  return optimizers;
}

absl::StatusOr<OptimizerDetails> Client::Describe(absl::string_view name) {
  SHARDSTEP_ASSIGN_OR_RETURN(internal::DescribedOptimizer described,
                             internal::DescribeOptimizer(*core_, internal::HeaderFor(name),
                                                         /*staging=*/0, core_->CallDeadline()));
  OptimizerDetails details;
  details.description = std::move(described.description);
  details.version = described.version;
  details.durable_version = described.durable_version;
  details.lineage = described.lineage;
  return details;
}

absl::StatusOr<std::vector<SessionSummary>> Client::ListSessions(absl::string_view name) {
  v1::ListSessionsRequest request;
  *request.mutable_header() = internal::HeaderFor(name);
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::ListSessionsReply reply,
                             core_->connection().ListSessions(request, core_->CallDeadline()));
  std::vector<SessionSummary> sessions;
  for (const v1::ListSessionsReply::Session& listed : reply.sessions()) {
    SessionSummary& session = sessions.emplace_back();
    session.trainer_rank = listed.trainer_rank();
    session.session = listed.session();
    session.last_seen = absl::Milliseconds(listed.last_seen_ms());
    session.lapsed = listed.lapsed();
    session.version = listed.version();
    session.in_step = listed.in_step();
    session.waited_for = listed.waited_for();
  }
  return sessions;
}

absl::Status Client::DeleteOptimizer(absl::string_view name) {
  internal::Change change;
  change.what = absl::StrCat("delete \"", name, "\"");
  change.fill = [](uint32_t, v1::ProposeRequest* request) {
    request->mutable_delete_();
    return absl::OkStatus();
  };
  const absl::Time deadline = core_->CallDeadline();
  while (true) {
    SHARDSTEP_ASSIGN_OR_RETURN(const v1::ListOptimizersReply list,
                               core_->connection().ListOptimizers({}, deadline));
    const auto listed = std::find_if(list.optimizers().begin(), list.optimizers().end(),
                                     [name](const auto& entry) { return entry.name() == name; });
    const bool stands = listed != list.optimizers().end();
    v1::CallHeader header = internal::OperatorHeaderFor(name);
    if (stands) header.set_lineage(listed->lineage());
    const absl::Status status = internal::ProposeChange(*core_, header, change, deadline).status();
    // The answer to an earlier attempt was lost.
    if (stands && absl::IsNotFound(status)) return absl::OkStatus();
    // All servers went back to a checkpoint meanwhile.
    if (!IsRolledBack(status)) return status;
  }
}

absl::StatusOr<FleetStatus> Client::GetFleetStatus(absl::Duration timeout) {
  FleetStatus fleet;
  fleet.name = core_->fleet().name;
  fleet.durability = core_->fleet().durability;
  fleet.checkpoints = core_->fleet().checkpoints;
  const int num_servers = core_->connection().num_servers();
  const absl::Time deadline = core_->Now() + timeout;
  fleet.servers.resize(num_servers);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_servers; ++rank) {
    threads.emplace_back([this, &fleet, rank, deadline] {
      fleet.servers[rank] = ToServerStatus(Greet(*core_, rank, deadline));
      fleet.servers[rank].server_rank = rank;
      fleet.servers[rank].address = core_->connection().ServerAddress(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return fleet;
}

}  // namespace shardstep
