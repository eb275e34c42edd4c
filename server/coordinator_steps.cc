// Steps: from the calls of the trainers to a change, and from its end to their replies.

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/util/message_differencer.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/faults.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr size_t kMaxInFlight = 32;
constexpr size_t kMaxEarly = 256;
constexpr uint64_t kMaxPushesOfStep = 4096;

// Of what a repeat of the call must equal.
std::string FingerprintOf(const v1::StepRequest& request) {
  v1::StepRequest asked = request;
  asked.clear_header();
  asked.clear_close_snapshots();
  const std::string bytes = asked.SerializeAsString();
  return absl::StrCat(Crc32cHex(Crc32c(bytes)), "-", bytes.size());
}

absl::Status SequenceReused(const OptimizerFacts& facts, uint64_t sequence) {
  return OptimizerError(facts, absl::StatusCode::kInvalidArgument, v1::SEQ_REUSE,
                        absl::StrCat("optimizer \"", facts.name, "\": step call ", sequence,
                                     " was made before with other contents"));
}

}  // namespace

void Coordinator::Step(v1::StepRequest request, Caller caller, Reply<v1::StepReply> reply) {
  Run([this, request = std::move(request), caller = std::move(caller),
       reply = std::move(reply)]() mutable {
    for (const uint64_t snapshot : request.close_snapshots()) CloseSnapshotNumber(snapshot);
    OnStep(std::move(request), std::move(caller), std::move(reply));
  });
}

void Coordinator::OnStep(v1::StepRequest request, Caller caller, Reply<v1::StepReply> reply) {
  const absl::Status live = CheckLive({});
  if (!live.ok()) return reply(live);
  const auto found = FindSession(request.header());
  if (!found.ok()) {
    // Where sessions outlive this process, one that is not known is fenced.
    if (env_.durability != Durability::kNone) return reply(found.status());
    const absl::Status rolled_back = CheckLive(request.header());
    return reply(rolled_back.ok() ? found.status() : rolled_back);
  }
  Session* session = *found;
  const uint64_t sequence = request.header().sequence();
  calls_.Forget(session->number, request.header().first_live_call());
  // A session that is older than this coordinator's start says how far it is.
  session->next_call = std::max(session->next_call, request.header().first_live_call());
  auto call = std::make_shared<StepCall>();
  call->session = session->number;
  call->trainer_rank = session->trainer_rank;
  call->sequence = sequence;
  call->fingerprint = FingerprintOf(request);
  call->request = std::move(request);
  call->caller = std::move(caller);
  call->reply = std::move(reply);

  const CommittedCalls::Recorded* const recorded = calls_.Find(session->number, sequence);
  if (recorded != nullptr) {
    if (recorded->fingerprint != call->fingerprint) {
      return call->reply(SequenceReused(Facts(), sequence));
    }
    v1::StepReply again;
    *again.mutable_committed() = Again(recorded->reply);
    return call->reply(again);
  }
  // Behind what is recorded: a step that was committed before history was rewound stays so.
  const absl::Status current = CheckLive(call->request.header());
  if (!current.ok()) return call->reply(current);
  auto open = open_.find({session->number, sequence});
  if (open != open_.end()) {
    StepCall& first = *open->second;
    if (first.fingerprint != call->fingerprint) {
      return call->reply(SequenceReused(Facts(), sequence));
    }
    const Reply<v1::StepReply> superseded = std::exchange(first.reply, call->reply);
    first.caller = call->caller;
    if (superseded) superseded(absl::UnavailableError("the call was repeated"));
    return;
  }
  if (draining_) return call->reply(absl::UnavailableError("the server is shutting down"));
  if (sequence < session->next_call) {
    return call->reply(absl::InvalidArgumentError(
        absl::StrCat("optimizer \"", name_, "\": step call ", sequence, " of session ",
                     session->number, ": the next is ", session->next_call)));
  }
  const absl::Status valid = CheckStep(call->request, *session);
  if (!valid.ok()) return call->reply(valid);
  if (sequence > session->next_call) {
    if (early_.size() >= kMaxEarly) {
      return call->reply(absl::ResourceExhaustedError("too many step calls came early"));
    }
    early_.push_back(std::move(call));
    return;
  }
  Accept(call);
  AcceptEarly();
  PumpSteps();
}

absl::Status Coordinator::CheckStep(const v1::StepRequest& request, const Session& session) const {
  const auto invalid = [&](auto&&... what) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", request.header().sequence(), " of \"", name_, "\": ", what...));
  };
  const auto* synchronous = std::get_if<Synchronous>(&definition_.mode);
  if (synchronous != nullptr && session.trainer_rank >= synchronous->trainers) {
    return invalid("trainer rank ", session.trainer_rank, ", expected 0 to ",
                   synchronous->trainers - 1);
  }
  if (request.header().sequence() == 0) return invalid("has no sequence");
  if (request.last_push() >= request.first_push() && request.first_push() == 0) {
    return invalid("pushes count from 1");
  }
  if (request.last_push() >= request.first_push() &&
      request.last_push() - request.first_push() >= kMaxPushesOfStep) {
    return invalid("pushes ", request.first_push(), " to ", request.last_push(),
                   ", expected at most ", kMaxPushesOfStep);
  }
  if (!std::isfinite(request.weight()) || request.weight() < 0) {
    return invalid("weight ", request.weight(), ", expected a finite number above 0");
  }
  const v1::StepOptions& options = request.options();
  // An infinite max_norm clips nothing and measures, as in PyTorch.
  if (std::isnan(options.clip_grad_norm()) || options.clip_grad_norm() < 0) {
    return invalid("clip_grad_norm ", options.clip_grad_norm(), ", expected a number above 0");
  }
  if (!std::isfinite(options.grad_scale()) || options.grad_scale() < 0) {
    return invalid("grad_scale ", options.grad_scale(), ", expected a finite number above 0");
  }
  if (!v1::NonFinitePolicy_IsValid(options.non_finite())) {
    return invalid("unknown non-finite policy ", static_cast<int>(options.non_finite()));
  }
  if (!v1::SnapshotKind_IsValid(request.want_snapshot())) {
    return invalid("unknown snapshot kind ", static_cast<int>(request.want_snapshot()));
  }
  if (request.trainer_state().size() > kMaxTrainerStateBytes) {
    return invalid("trainer state of ", request.trainer_state().size(), " bytes, expected at most ",
                   kMaxTrainerStateBytes);
  }
  std::map<uint32_t, OptionMap> options_of;
  for (const v1::OptionSetting& setting : request.set_options()) {
    if (setting.group() >= groups_->size()) {
      return invalid("sets \"", setting.option().name(), "\" of group ", setting.group(),
                     ", the optimizer has ", groups_->size());
    }
    SHARDSTEP_ASSIGN_OR_RETURN(OptionValue value, OptionValueFromProto(setting.option().value()));
    OptionMap& set =
        options_of.try_emplace(setting.group(), (*groups_)[setting.group()].options).first->second;
    set.Set(setting.option().name(), std::move(value));
    SHARDSTEP_RETURN_IF_ERROR(CheckOptions(definition_.kind, set));
  }
  return absl::OkStatus();
}

void Coordinator::Accept(const StepCallPtr& call) {
  SHARDSTEP_PASS("coordinator.step_accepted");
  Session* session = sessions_.Find(call->session);
  session->next_call = call->sequence + 1;
  open_[{call->session, call->sequence}] = call;
  waiting_.push_back(call);
}

void Coordinator::AcceptEarly() {
  for (bool accepted = true; accepted;) {
    accepted = false;
    for (auto call = early_.begin(); call != early_.end(); ++call) {
      const Session* session = sessions_.Find((*call)->session);
      if (session == nullptr || (*call)->sequence != session->next_call) continue;
      const StepCallPtr next = *call;
      early_.erase(call);
      Accept(next);
      accepted = true;
      break;
    }
  }
}

std::vector<int> Coordinator::LostParticipants() {
  std::vector<int> lost;
  const auto* synchronous = std::get_if<Synchronous>(&definition_.mode);
  for (int rank = 0; synchronous != nullptr && rank < synchronous->trainers; ++rank) {
    const Session* session = sessions_.OfRank(rank);
    if (session != nullptr && sessions_.Lapsed(*session)) lost.push_back(rank);
  }
  return lost;
}

void Coordinator::PumpSteps() {
  if (state_ != State::kLive || !alone_.empty()) return;
  // A change that is no step travels alone.
  if (!pipeline_.empty() && !pipeline_.changes().back()->request.has_step()) return;
  const auto* synchronous = std::get_if<Synchronous>(&definition_.mode);
  if (synchronous == nullptr) {
    while (!waiting_.empty() && pipeline_.size() < kMaxInFlight) {
      const StepCallPtr call = waiting_.front();
      waiting_.pop_front();
      StartStep({call});
    }
    return;
  }
  while (!waiting_.empty()) {
    const std::vector<int> lost = LostParticipants();
    if (!lost.empty()) {
      v1::ErrorDetail detail;
      detail.set_reason(v1::PARTICIPANT_LOST);
      detail.set_optimizer(name_);
      detail.set_version(pipeline_.committed());
      detail.set_lineage(lineage_);
      detail.set_server_rank(-1);
      for (const int rank : lost) detail.add_trainer_ranks(rank);
      return FailWaiting(
          MakeError(absl::StatusCode::kAborted,
                    absl::StrCat("step ", pipeline_.decided() + 1, " of \"", name_,
                                 "\": the lease of trainer rank ", absl::StrJoin(lost, ", "),
                                 " lapsed; its replacement lets the others go on"),
                    detail));
    }
    std::vector<StepCallPtr> calls(synchronous->trainers);
    int present = 0;
    for (const StepCallPtr& call : waiting_) {
      if (calls[call->trainer_rank] != nullptr) continue;
      calls[call->trainer_rank] = call;
      ++present;
    }
    if (present < synchronous->trainers || pipeline_.size() >= kMaxInFlight) return;
    if (FailUnequalOptions(calls)) continue;
    for (const StepCallPtr& call : calls) {
      waiting_.erase(std::find(waiting_.begin(), waiting_.end(), call));
    }
    StartStep(std::move(calls));
  }
}

bool Coordinator::FailUnequalOptions(const std::vector<StepCallPtr>& calls) {
  for (size_t i = 1; i < calls.size(); ++i) {
    v1::StepRequest asked[2];
    for (const int side : {0, 1}) {
      const v1::StepRequest& request = calls[side == 0 ? 0 : i]->request;
      *asked[side].mutable_options() = request.options();
      *asked[side].mutable_set_options() = request.set_options();
    }
    std::string difference;
    google::protobuf::util::MessageDifferencer differencer;
    differencer.ReportDifferencesToString(&difference);
    if (differencer.Compare(asked[0], asked[1])) continue;
    std::replace(difference.begin(), difference.end(), '\n', ' ');
    const absl::Status unequal = absl::InvalidArgumentError(absl::StrCat(
        "step ", pipeline_.decided() + 1, " of \"", name_, "\": trainer rank 0 and trainer rank ",
        i, " ask for different options: ", difference));
    for (const StepCallPtr& call : calls) FailCall(call, unequal);
    return true;
  }
  return false;
}

void Coordinator::StartStep(std::vector<StepCallPtr> calls) {
  auto change = std::make_unique<Change>();
  v1::PrepareStep* step = change->request.mutable_step();
  *step->mutable_options() = calls[0]->request.options();
  *step->mutable_set_options() = calls[0]->request.set_options();
  v1::SnapshotKind kind = v1::NO_SNAPSHOT;
  for (const StepCallPtr& call : calls) {
    call->in_pipeline = true;
    v1::Contribution* contribution = step->add_contributions();
    contribution->set_trainer_rank(call->trainer_rank);
    contribution->mutable_pushes()->set_session(call->session);
    contribution->mutable_pushes()->set_first(call->request.first_push());
    contribution->mutable_pushes()->set_last(call->request.last_push());
    contribution->set_weight(call->request.weight() == 0 ? 1 : call->request.weight());
    contribution->set_first_live_push(call->request.header().first_live_push());
    contribution->set_call(call->sequence);
    contribution->set_call_fingerprint(call->fingerprint);
    contribution->set_trainer_state(call->request.trainer_state());
    kind = std::max(kind, call->request.want_snapshot());
  }
  if (kind != v1::NO_SNAPSHOT) {
    change->hold.set_snapshot(snapshots_.NextId());
    change->hold.set_kind(kind);
  }
  change->finished = [this, calls = std::move(calls)](const Change& done,
                                                      const absl::Status& status) {
    FinishStep(done, calls, status, /*note=*/true);
  };
  pipeline_.Start(std::move(change));
  SHARDSTEP_PASS("coordinator.step_started");
}

void Coordinator::FinishStep(const Change& change, const std::vector<StepCallPtr>& calls,
                             const absl::Status& status, bool note) {
  if (!status.ok()) {
    for (const StepCallPtr& call : calls) FailCall(call, status);
    return;
  }
  v1::StepReply::Committed committed;
  committed.set_version(change.request.version());
  committed.set_lineage(lineage_);
  committed.set_grad_norm(change.verdict->decision.grad_norm());
  committed.set_skipped(change.verdict->decision.outcome() == v1::Decision::SKIP);
  committed.set_durable_version(durable_version());
  if (note) {
    for (const v1::Contribution& contribution : change.request.step().contributions()) {
      calls_.Note(contribution, committed);
    }
  }
  if (note && !change.request.step().set_options().empty()) {
    auto groups = std::make_shared<std::vector<ParamGroup>>(*groups_);
    for (const v1::OptionSetting& setting : change.request.step().set_options()) {
      // It was checked when the step was called.
      (*groups)[setting.group()].options.Set(
          setting.option().name(), OptionValueFromProto(setting.option().value()).value());
    }
    groups_ = std::move(groups);
    description_stale_ = true;
  }
  int readers = 0;
  for (const StepCallPtr& call : calls) {
    const bool reads =
        call->reply && !call->caller.gone() && call->request.want_snapshot() != v1::NO_SNAPSHOT;
    if (reads) ++readers;
  }
  for (const StepCallPtr& call : calls) {
    open_.erase({call->session, call->sequence});
  }
  const uint64_t snapshot = change.hold.snapshot();
  if (snapshot != 0 && !change.hold_lost && readers > 0) {
    // The trainers' states are those of this version by now.
    snapshots_.Opened(snapshot, change.request.version(), change.hold.kind(), readers,
                      SnapshotFactsNow(change.hold.kind()));
  } else if (snapshot != 0) {
    Release({snapshot});
  }
  SHARDSTEP_PASS("coordinator.step_recorded");
  for (const StepCallPtr& call : calls) {
    if (!call->reply || call->caller.gone()) continue;
    v1::StepReply reply;
    *reply.mutable_committed() = committed;
    if (snapshot != 0 && !change.hold_lost && call->request.want_snapshot() != v1::NO_SNAPSHOT) {
      *reply.mutable_committed()->mutable_snapshot() =
          SnapshotMessage(snapshot, change.request.version(), change.hold.kind());
    }
    std::exchange(call->reply, nullptr)(reply);
    SHARDSTEP_PASS("coordinator.step_answered");
  }
  AnswerOpenSessions();
  PumpSteps();
}

void Coordinator::FailCall(const StepCallPtr& call, const absl::Status& status) {
  open_.erase({call->session, call->sequence});
  const auto waiting = std::find(waiting_.begin(), waiting_.end(), call);
  if (waiting != waiting_.end()) waiting_.erase(waiting);
  if (call->reply) std::exchange(call->reply, nullptr)(status);
  Session* session = sessions_.Find(call->session);
  if (session == nullptr) return;
  // Failures are not recorded: the same sequence may be called again, and calls are taken in their
  // order, so those behind it that nobody has prepared end too.
  session->next_call = std::min(session->next_call, call->sequence);
  std::vector<StepCallPtr> later;
  for (const StepCallPtr& other : waiting_) {
    if (other->session == call->session && other->sequence > call->sequence) {
      later.push_back(other);
    }
  }
  for (const StepCallPtr& other : later) {
    FailCall(other, absl::UnavailableError(
                        absl::StrCat("step call ", call->sequence, " before it failed")));
  }
}

void Coordinator::FailWaiting(const absl::Status& status) {
  const std::deque<StepCallPtr> failed = waiting_;
  for (const StepCallPtr& call : failed) FailCall(call, status);
  for (const StepCallPtr& call : std::exchange(early_, {})) call->reply(status);
}

v1::StepReply Coordinator::WaitingReply(const StepCall& call) {
  v1::StepReply reply;
  v1::StepReply::Waiting* waiting = reply.mutable_waiting();
  waiting->set_version(pipeline_.decided() + 1);
  if (call.in_pipeline) {
    for (const int server : pipeline_.WaitingFor()) waiting->add_servers(server);
    return reply;
  }
  const auto* synchronous = std::get_if<Synchronous>(&definition_.mode);
  for (int rank = 0; synchronous != nullptr && rank < synchronous->trainers; ++rank) {
    const bool present = std::any_of(waiting_.begin(), waiting_.end(), [&](const auto& other) {
      return other->trainer_rank == rank;
    });
    if (present) continue;
    v1::StepReply::Waiting::Trainer* trainer = waiting->add_trainers();
    trainer->set_trainer_rank(rank);
    const Session* session = sessions_.OfRank(rank);
    trainer->set_last_seen_ms(
        session == nullptr ? -1
                           : absl::ToInt64Milliseconds(env_.clock->Now() - session->last_seen));
  }
  return reply;
}

void Coordinator::AnswerWaitingSteps(absl::Time now) {
  for (const auto& [key, call] : open_) {
    if (!call->reply || now < call->caller.answer_by) continue;
    std::exchange(call->reply, nullptr)(WaitingReply(*call));
  }
  std::vector<StepCallPtr> still;
  for (const StepCallPtr& call : std::exchange(early_, {})) {
    if (now < call->caller.answer_by) {
      still.push_back(call);
    } else {
      call->reply(WaitingReply(*call));
    }
  }
  early_.insert(early_.end(), still.begin(), still.end());
}

v1::StepReply::Committed Coordinator::Again(const v1::StepReply::Committed& recorded) const {
  v1::StepReply::Committed again = recorded;
  if (recorded.lineage() == lineage_) {
    again.set_durable_version(std::max(recorded.durable_version(), durable_version()));
  }
  return again;
}

void Coordinator::StepStatus(v1::StepStatusRequest request, Reply<v1::StepStatusReply> reply) {
  Run([this, request = std::move(request), reply = std::move(reply)] {
    v1::StepStatusReply status;
    const uint64_t sequence = request.header().sequence();
    if (state_ == State::kRecovering) return reply(Recovering());
    const CommittedCalls::Recorded* const recorded =
        calls_.Find(request.header().session(), sequence);
    if (recorded != nullptr) {
      status.set_state(v1::StepStatusReply::COMMITTED);
      *status.mutable_committed() = Again(recorded->reply);
      return reply(status);
    }
    const Session* session = sessions_.Find(request.header().session());
    if (session == nullptr) return reply(status);
    if (open_.count({session->number, sequence}) > 0) {
      status.set_state(v1::StepStatusReply::PENDING);
    } else if (sequence == session->next_call) {
      status.set_state(v1::StepStatusReply::ABORTED);
    }
    reply(status);
  });
}

}  // namespace shardstep
