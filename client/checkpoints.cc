#include "shardstep/client/checkpoints.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "shardstep/client/change_proposal.h"
#include "shardstep/client/client.h"
#include "shardstep/client/client_core.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// How long a server may take to read one file again.
constexpr absl::Duration kVerifyFileTimeout = absl::Hours(1);

}  // namespace

absl::StatusOr<CheckpointSummary> Client::Checkpoint(absl::string_view name,
                                                     const CheckpointOptions& options) {
  v1::CheckpointRequest request;
  *request.mutable_header() = internal::OperatorHeaderFor(name);
  request.set_checkpoint_id(options.id);
  const internal::RetryPolicy& policy = core_->policy();
  internal::Backoff backoff(policy.first_backoff, policy.longest_backoff, policy.random);
  const absl::Time started = core_->Now();
  const absl::Time deadline = started + options.timeout;
  while (true) {
    const absl::Time called = core_->Now();
    SHARDSTEP_ASSIGN_OR_RETURN(const v1::CheckpointReply reply,
                               core_->connection().Checkpoint(request, deadline));
    if (reply.has_done()) {
      CheckpointSummary made;
      made.id = reply.done().checkpoint_id();
      made.version = reply.done().version();
      made.bytes = reply.done().bytes();
      return made;
    }
    const v1::CheckpointReply::Pending& pending = reply.pending();
    if (options.progress) options.progress(pending.bytes_done(), pending.bytes_total());
    const absl::Time now = core_->Now();
    if (now >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "checkpoint of \"", name, "\": waited ", internal::Seconds(now - started), ", ",
          pending.bytes_done(), " of ", pending.bytes_total(), " bytes are written"));
    }
    // Long polls pace themselves; answers that come at once do not.
    if (now - called < policy.first_backoff) {
      policy.timer->SleepFor(std::min(backoff.Next(), deadline - now));
    }
  }
}

absl::StatusOr<std::vector<CheckpointSummary>> Client::ListCheckpoints(absl::string_view name) {
  v1::ListCheckpointsRequest request;
  *request.mutable_header() = internal::HeaderFor(name);
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::ListCheckpointsReply reply,
                             core_->connection().ListCheckpoints(request, core_->CallDeadline()));
  std::vector<CheckpointSummary> checkpoints;
  for (const v1::ListCheckpointsReply::Checkpoint& listed : reply.checkpoints()) {
    checkpoints.push_back({listed.checkpoint_id(), listed.version(), listed.bytes(),
                           listed.lineage(), listed.automatic(), listed.problem()});
  }
  return checkpoints;
}

absl::StatusOr<std::vector<std::string>> Client::VerifyCheckpoint(absl::string_view name,
                                                                  absl::string_view id,
                                                                  const Progress& progress) {
  v1::VerifyCheckpointRequest request;
  *request.mutable_header() = internal::HeaderFor(name);
  request.set_checkpoint_id(std::string(id));
  std::vector<std::string> problems;
  uint64_t done = 0;
  uint32_t files = 1;  // how many there are the first answer says
  for (uint32_t file = 0; file < files; ++file) {
    request.set_file(file);
    SHARDSTEP_ASSIGN_OR_RETURN(
        const v1::VerifyCheckpointReply reply,
        core_->connection().VerifyCheckpoint(request, core_->Now() + kVerifyFileTimeout));
    problems.insert(problems.end(), reply.problems().begin(), reply.problems().end());
    files = reply.files();
    done += reply.bytes();
    if (progress) progress(done, reply.total_bytes());
  }
  return problems;
}

absl::StatusOr<RestoreResult> Client::Restore(absl::string_view name, absl::string_view id,
                                              const RestoreOptions& options) {
  internal::Change change;
  change.what = absl::StrCat("restore \"", name, "\"");
  change.fill = [id](uint32_t, v1::ProposeRequest* request) {
    request->mutable_restore()->set_checkpoint_id(std::string(id));
    return absl::OkStatus();
  };
  change.progress = options.progress;
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::ProposeReply::Done done,
                             internal::ProposeChange(*core_, internal::OperatorHeaderFor(name),
                                                     change, core_->Now() + options.timeout));
  RestoreResult result;
  result.version = done.version();
  result.lineage = done.lineage();
  result.placed_anew.assign(done.placed_anew().begin(), done.placed_anew().end());
  return result;
}

}  // namespace shardstep
