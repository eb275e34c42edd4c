#include "shardstep/client/optimizer_core.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

// With no word of the coordinator for so long a step is asked about before it is called again.
constexpr absl::Duration kRetryHorizon = absl::Minutes(30);
// An answer "still waiting" this fresh is why a call that got none at the deadline ended.
constexpr absl::Duration kFreshAnswer = absl::Seconds(5);

v1::NonFinitePolicy ToProto(NonFinite policy) {
  switch (policy) {
    case NonFinite::kPropagate:
      return v1::PROPAGATE;
    case NonFinite::kSkip:
      return v1::SKIP;
    case NonFinite::kRefuse:
      return v1::REFUSE;
  }
  return v1::PROPAGATE;
}

v1::SnapshotKind ToProto(SnapshotContents contents) {
  switch (contents) {
    case SnapshotContents::kNone:
      return v1::NO_SNAPSHOT;
    case SnapshotContents::kParameters:
      return v1::PARAMETERS;
    case SnapshotContents::kEverything:
      return v1::EVERYTHING;
  }
  return v1::NO_SNAPSHOT;
}

// An infinite clip_grad_norm is allowed: it clips nothing, as in PyTorch.
absl::Status CheckStepOptions(const StepOptions& options) {
  if (options.clip_grad_norm && !(*options.clip_grad_norm > 0.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("clip_grad_norm: expected a number above 0, got ", *options.clip_grad_norm));
  }
  if (options.grad_scale && !(std::isfinite(*options.grad_scale) && *options.grad_scale > 0.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("grad_scale: expected a finite number above 0, got ", *options.grad_scale));
  }
  return absl::OkStatus();
}

// Whether an error leaves open what became of the step.
bool OutcomeUnknown(const absl::Status& status) {
  return IsTransient(status) || status.code() == absl::StatusCode::kDeadlineExceeded;
}

absl::Status WithMessage(const absl::Status& status, absl::string_view message) {
  absl::Status changed(status.code(), message);
  status.ForEachPayload([&changed](absl::string_view type, const absl::Cord& payload) {
    changed.SetPayload(type, payload);
  });
  return changed;
}

// `age`: how old the answer is.
std::string LastSeen(const v1::StepReply::Waiting::Trainer& trainer, absl::Duration age) {
  if (trainer.last_seen_ms() < 0) return absl::StrCat(trainer.trainer_rank(), " (never seen)");
  return absl::StrCat(trainer.trainer_rank(), " (last seen ",
                      Seconds(absl::Milliseconds(trainer.last_seen_ms()) + age), " ago)");
}

}  // namespace

OptimizerCore::OptimizerCore(std::shared_ptr<const ClientCore> client,
                             std::unique_ptr<Session> session, DescribedOptimizer described,
                             DeclaredRegions regions)
    : client_(std::move(client)),
      session_(std::move(session)),
      index_(std::make_shared<const OptimizerIndex>(std::move(described.description))),
      pushes_(std::make_shared<Pushes>(client_, session_->header(), index_, std::move(regions))),
      pull_(client_, session_->header(), index_),
      param_groups_(index_->description().groups),
      trainer_state_(session_->opened().trainer_state()),
      last_step_version_(session_->opened().last_version()),
      version_(described.version),
      lineage_(described.lineage),
      durable_version_(described.durable_version),
      pulled_version_(described.version) {
  pull_.Adopt(lineage_, index_);
}

absl::Status OptimizerCore::SetOption(int group, absl::string_view option, OptionValue value) {
  if (group < 0 || group >= static_cast<int>(param_groups_.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("group: expected 0 to ", param_groups_.size() - 1, ", got ", group));
  }
  OptionMap options = param_groups_[group].options;
  options.Set(option, value);
  SHARDSTEP_RETURN_IF_ERROR(CheckOptions(index_->description().definition.kind, options));
  param_groups_[group].options = std::move(options);
  v1::OptionSetting setting;
  setting.set_group(static_cast<uint32_t>(group));
  setting.mutable_option()->set_name(std::string(option));
  *setting.mutable_option()->mutable_value() = OptionValueToProto(value);
  set_options_.push_back(std::move(setting));
  return absl::OkStatus();
}

absl::Status OptimizerCore::SetTrainerState(std::string bytes) {
  if (bytes.size() > kMaxTrainerStateBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "trainer state: expected at most ", kMaxTrainerStateBytes, " bytes, got ", bytes.size()));
  }
  trainer_state_ = std::move(bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<PushCore>> OptimizerCore::StartPush(const PushOptions& options) {
  v1::Begin begin;
  begin.mutable_header()->set_lineage(lineage_);
  begin.set_weight(options.weight);
  begin.set_computed_on(options.computed_on.value_or(pulled_version_));
  begin.set_last(options.last);
  SHARDSTEP_ASSIGN_OR_RETURN(const Pushes::PushId push, pushes_->Begin(std::move(begin)));
  return std::make_shared<PushCore>(pushes_, push);
}

absl::Status OptimizerCore::ZeroGrad(bool set_to_none) {
  if (const auto open = pushes_->open()) pushes_->Abandon(*open);
  // What a pending step names is that step's.
  if (pending_) {
    if (pushes_->last() == pending_->request.last_push()) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat(StepName(), " is not over; call Step before ZeroGrad"));
  }
  if (!set_to_none) return pushes_->ReplaceWithZeros();
  pushes_->Drop(pushes_->last() + 1);
  return absl::OkStatus();
}

v1::StepRequest OptimizerCore::MakeRequest(const StepOptions& options) {
  v1::StepRequest request;
  v1::CallHeader& header = *request.mutable_header();
  header = LineageHeader();
  header.set_plan_id(index_->plan_id());
  header.set_sequence(next_call_);
  header.set_first_live_call(next_call_);
  header.set_first_live_push(pushes_->first_live());
  request.set_first_push(pushes_->first_live());
  request.set_last_push(pushes_->last());
  request.set_weight(pushes_->weight());
  if (auto partial = pushes_->partial()) *request.mutable_partial() = *std::move(partial);
  for (const v1::OptionSetting& setting : set_options_) *request.add_set_options() = setting;
  request.mutable_options()->set_clip_grad_norm(options.clip_grad_norm.value_or(0.0));
  request.mutable_options()->set_grad_scale(options.grad_scale.value_or(0.0));
  request.mutable_options()->set_non_finite(ToProto(options.non_finite));
  request.mutable_options()->set_keep_gradients(options.keep_gradients);
  request.set_trainer_state(trainer_state_);
  request.set_want_snapshot(ToProto(options.snapshot));
  for (uint64_t snapshot : pull_.TakeClosed()) request.add_close_snapshots(snapshot);
  return request;
}

absl::StatusOr<StepResult> OptimizerCore::Step(const StepOptions& options) {
  SHARDSTEP_RETURN_IF_ERROR(CheckStepOptions(options));
  if (pushes_->open()) {
    return absl::FailedPreconditionError(
        absl::StrCat("push ", pushes_->last(), " of \"", name(), "\" is open; call Finish first"));
  }
  const absl::Time started = client_->Now();
  const absl::Time deadline = started + options.timeout;
  SHARDSTEP_RETURN_IF_ERROR(EnsureDescribed(deadline));
  if (!pending_) {
    PendingStep step;
    step.request = MakeRequest(options);
    step.heard = started;
    pending_ = std::move(step);
  }
  const absl::StatusOr<v1::StepReply::Committed> committed = RunStep(started, deadline);
  if (committed.ok()) return Commit(*committed);
  return Fail(committed.status(), deadline);
}

absl::StatusOr<v1::StepReply::Committed> OptimizerCore::RunStep(absl::Time started,
                                                                absl::Time deadline) {
  const RetryPolicy& policy = client_->policy();
  Backoff backoff(policy.first_backoff, policy.longest_backoff, policy.random);
  while (true) {
    const absl::Status pushed = pushes_->AwaitAcks(pending_->request.last_push(), deadline);
    if (ReasonOf(pushed) == v1::PLAN_CHANGED && client_->Now() < deadline) {
      SHARDSTEP_RETURN_IF_ERROR(FollowPlan(deadline));
      policy.timer->SleepFor(std::min(backoff.Next(), deadline - client_->Now()));
      continue;
    }
    SHARDSTEP_RETURN_IF_ERROR(pushed);
    const absl::Time called = client_->Now();
    if (called - pending_->heard > kRetryHorizon) {
      SHARDSTEP_ASSIGN_OR_RETURN(const std::optional<v1::StepReply::Committed> committed,
                                 AskStatus(deadline));
      if (committed) return *committed;
    }
    pending_->in_flight = true;
    const absl::StatusOr<v1::StepReply> reply =
        client_->connection().Step(pending_->request, std::min(deadline, called + kRetryHorizon));
    const absl::Time now = client_->Now();
    if (reply.ok() && reply->has_committed()) return reply->committed();
    if (reply.ok() || Continues(reply.status(), deadline)) {
      if (reply.ok()) pending_->waiting = reply->waiting();
      pending_->interrupted = reply.status();
      pending_->heard = pending_->answered = now;
    } else {
      const bool unknown = OutcomeUnknown(reply.status());
      const bool answered_before = now - pending_->answered < kFreshAnswer && now >= deadline;
      const bool ask = now - called >= kRetryHorizon && now < deadline;
      if (!unknown || !(answered_before || ask)) return reply.status();
    }
    if (now >= deadline) return StillWaiting(now - started);
    // Long polls pace themselves; errors and answers that come at once do not.
    if (!reply.ok() || now - called < policy.first_backoff) {
      policy.timer->SleepFor(std::min(backoff.Next(), deadline - now));
    }
  }
}

absl::StatusOr<std::optional<v1::StepReply::Committed>> OptimizerCore::AskStatus(
    absl::Time deadline) {
  v1::StepStatusRequest request;
  *request.mutable_header() = pending_->request.header();
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::StepStatusReply reply,
                             client_->connection().StepStatus(request, deadline));
  if (reply.state() == v1::StepStatusReply::COMMITTED) return reply.committed();
  // It waits there, is dead, or was never heard of: the same call goes on with it. One that was
  // committed and forgotten is refused by its number.
  pending_->heard = client_->Now();
  return std::nullopt;
}

absl::Status OptimizerCore::FollowPlan(absl::Time deadline) {
  SHARDSTEP_RETURN_IF_ERROR(Describe(deadline));
  pending_->request.mutable_header()->set_plan_id(index_->plan_id());
  return absl::OkStatus();
}

bool OptimizerCore::Continues(const absl::Status& status, absl::Time deadline) {
  const std::optional<v1::ErrorDetail> detail = ErrorDetailOf(status);
  if (!detail) return false;
  switch (detail->reason()) {
    case v1::MISSING:
      pending_->in_flight = false;
      for (const v1::MissingPushes& missing : detail->missing()) {
        for (const v1::PushRange& range : missing.pushes()) {
          if (range.session() != session_->number()) continue;  // its own trainer pushes it again
          pushes_->Repeat(missing.server_rank(), range.first(), range.last());
        }
      }
      return true;
    case v1::PARTICIPANT_LOST:
      pending_->in_flight = false;
      return true;
    case v1::PLAN_CHANGED:
      pending_->in_flight = false;
      return FollowPlan(deadline).ok();
    default:
      return false;
  }
}

StepResult OptimizerCore::Commit(const v1::StepReply::Committed& committed) {
  const v1::StepRequest request = std::move(pending_->request);
  pending_.reset();
  ++next_call_;
  version_ = committed.version();
  stepped_version_ = version_;
  lineage_ = committed.lineage();
  durable_version_ = committed.durable_version();
  set_options_.erase(set_options_.begin(), set_options_.begin() + request.set_options_size());
  if (!request.options().keep_gradients()) pushes_->Drop(request.last_push() + 1);
  if (committed.has_snapshot()) pull_.Offer(committed.snapshot());
  StepResult result;
  result.version = version_;
  result.durable_version = durable_version_;
  result.lineage = lineage_;
  result.grad_norm = committed.grad_norm();
  result.skipped = committed.skipped();
  return result;
}

absl::Status OptimizerCore::Fail(const absl::Status& status, absl::Time deadline) {
  if (status.code() == absl::StatusCode::kDeadlineExceeded) return status;
  if (OutcomeUnknown(status) && pending_->in_flight) {
    return WithMessage(status, absl::StrCat(StepName(), ": outcome unknown: ", status.message(),
                                            LastDurable(), "; call Step again to go on with it"));
  }
  const uint64_t last_push = pending_->request.last_push();
  pending_.reset();
  switch (ReasonOf(status)) {
    case v1::NONFINITE:
    case v1::GRADIENT_TOO_OLD:
      pushes_->Drop(last_push + 1);
      break;
    default:
      break;
  }
  if (status.code() == absl::StatusCode::kUnavailable || ReasonOf(status) == v1::SHARDS_LOST) {
    return WithMessage(status, absl::StrCat(status.message(), LastDurable()));
  }
  return Follow(status, deadline);
}

std::string OptimizerCore::LastDurable() const {
  return durable_version_ == 0 ? "" : absl::StrCat(", last durable version ", durable_version_);
}

std::string OptimizerCore::StepName() const {
  const uint64_t version =
      pending_ && pending_->waiting ? pending_->waiting->version() : version_ + 1;
  return absl::StrCat("step ", version, " of \"", name(), "\"");
}

absl::Status OptimizerCore::StillWaiting(absl::Duration waited) const {
  if (!pending_->interrupted.ok()) {
    return absl::DeadlineExceededError(absl::StrCat(StepName(), ": waited ", Seconds(waited), "; ",
                                                    pending_->interrupted.message()));
  }
  const v1::StepReply::Waiting& waiting = *pending_->waiting;
  const absl::Duration age = client_->Now() - pending_->answered;
  std::vector<std::string> whom;
  if (waiting.trainers_size() > 0) {
    whom.push_back(absl::StrCat(
        waiting.trainers_size() == 1 ? "trainer rank " : "trainer ranks ",
        absl::StrJoin(waiting.trainers(), ", ",
                      [age](std::string* out, const v1::StepReply::Waiting::Trainer& trainer) {
                        absl::StrAppend(out, LastSeen(trainer, age));
                      })));
  }
  for (int server_rank : waiting.servers()) {
    const bool known = server_rank >= 0 && server_rank < client_->connection().num_servers();
    whom.push_back(known ? client_->connection().ServerName(server_rank)
                         : absl::StrCat("server ", server_rank));
  }
  if (whom.empty()) whom.emplace_back("the coordinator");
  return absl::DeadlineExceededError(
      absl::StrCat(StepName(), ": waited ", Seconds(waited), " for ", absl::StrJoin(whom, ", ")));
}

}  // namespace shardstep::internal
