#include "shardstep/client/change_proposal.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

// A staging that is over or was never this one's: whoever proposes again is told what holds now.
bool StagingIsOver(const absl::Status& status) {
  return status.code() == absl::StatusCode::kNotFound ||
         status.code() == absl::StatusCode::kAborted || ReasonOf(status) == v1::PLAN_CHANGED;
}

std::string WaitsFor(const v1::ProposeReply& reply) {
  if (!reply.has_pending() || reply.pending().staged_by().empty()) return "the coordinator";
  return absl::StrCat("the values of trainer ranks ",
                      absl::StrJoin(reply.pending().staged_by(), ", "));
}

}  // namespace

absl::StatusOr<v1::ProposeReply::Done> ProposeChange(const ClientCore& client,
                                                     const v1::CallHeader& header,
                                                     const Change& change, absl::Time deadline) {
  const RetryPolicy& policy = client.policy();
  Backoff backoff(policy.first_backoff, policy.longest_backoff, policy.random);
  v1::ProposeRequest request;
  *request.mutable_header() = header;
  uint32_t page = 0;
  const absl::Time started = client.Now();
  while (true) {
    SHARDSTEP_RETURN_IF_ERROR(change.fill(page, &request));
    const absl::Time called = client.Now();
    SHARDSTEP_ASSIGN_OR_RETURN(const v1::ProposeReply reply,
                               client.connection().Propose(request, deadline));
    if (reply.has_done()) return reply.done();
    if (reply.has_need_page()) {
      page = reply.need_page().index();
      continue;
    }
    if (reply.has_staging()) {
      const absl::Status status =
          change.stage ? change.stage(reply.staging())
                       : absl::InternalError("the coordinator asks for values that there are not");
      if (status.ok()) {
        request.set_staged(reply.staging().staging());
        continue;
      }
      if (!StagingIsOver(status)) return status;
    } else if (change.progress && reply.pending().bytes_total() > 0) {
      change.progress(reply.pending().bytes_done(), reply.pending().bytes_total());
    }
    const absl::Time now = client.Now();
    if (now >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(change.what, ": waited ", Seconds(now - started), " for ", WaitsFor(reply)));
    }
    // Long polls pace themselves; answers that come at once do not.
    if (now - called < policy.first_backoff) {
      policy.timer->SleepFor(std::min(backoff.Next(), deadline - now));
    }
  }
}

}  // namespace shardstep::internal
