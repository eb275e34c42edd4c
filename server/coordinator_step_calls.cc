// The calls of Step: how they are checked, wait, are repeated and end.

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
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

constexpr size_t kMaxEarly = 256;
constexpr uint64_t kMaxPushesOfStep = 4096;

// Of what a repeat of the call must equal: all but its header. Snapshots that it closes are closed
// by now.
std::string FingerprintOf(v1::StepRequest* request) {
  request->clear_close_snapshots();
  v1::CallHeader* const header = request->release_header();
  const std::string bytes = request->SerializeAsString();
  request->set_allocated_header(header);
  return absl::StrCat(Crc32cHex(Crc32c(bytes)), "-", bytes.size());
}

absl::Status SequenceReused(const OptimizerFacts& facts, uint64_t sequence) {
  return OptimizerError(facts, absl::StatusCode::kInvalidArgument, v1::SEQ_REUSE,
                        absl::StrCat("optimizer \"", facts.name, "\": step call ", sequence,
                                     " was made before with other contents"));
}

}  // namespace

void Coordinator::Step(v1::StepRequest request, Caller caller, Reply<v1::StepReply> reply) {
  std::vector<CalledStep> one;
  one.push_back({std::move(request), std::move(caller), std::move(reply)});
  Step(std::move(one));
}

void Coordinator::Step(std::vector<CalledStep> called) {
  Run([this, called = std::move(called)]() mutable {
    for (CalledStep& step : called) {
      for (const uint64_t snapshot : step.request.close_snapshots()) CloseSnapshotNumber(snapshot);
      OnStep(std::move(step));
    }
    PumpSteps();
  });
}

void Coordinator::OnStep(CalledStep called) {
  v1::StepRequest& request = called.request;
  const Reply<v1::StepReply>& reply = called.reply;
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
  call->fingerprint = FingerprintOf(&request);
  call->request = std::move(request);
  call->caller = std::move(called.caller);
  call->reply = std::move(called.reply);

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
  if (request.last_push() == UINT64_MAX) return invalid("pushes count below ", UINT64_MAX);
  const size_t bitmap = (definition_.parameters.size() + 7) / 8;
  for (const std::string* bits : {&request.partial().touched(), &request.partial().rows()}) {
    if (bits->size() > bitmap) {
      return invalid("touches parameters by a bitmap of ", bits->size(),
                     " bytes, expected at most ", bitmap);
    }
  }
  int last_rank = -1;
  for (const v1::PartialPushes::SentTo& sent : request.partial().sent_to()) {
    if (sent.server_rank() <= last_rank || sent.server_rank() >= env_.servers) {
      return invalid("pushes sent to server ", sent.server_rank(), ", expected server ranks from ",
                     last_rank + 1, " to ", env_.servers - 1, ", ascending");
    }
    last_rank = sent.server_rank();
    uint64_t next = request.first_push();
    for (const uint64_t push : sent.sequences()) {
      if (push < next || push > request.last_push()) {
        return invalid("push ", push, " sent to server ", sent.server_rank(),
                       ", expected pushes from ", next, " to ", request.last_push(), ", ascending");
      }
      next = push + 1;
    }
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
    SHARDSTEP_ASSIGN_OR_RETURN(const OptionValue value,
                               OptionValueFromProto(setting.option().value()));
    OptionMap& set =
        options_of.try_emplace(setting.group(), (*groups_)[setting.group()].options).first->second;
    set.Set(setting.option().name(), value);
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
  const auto* synchronous = std::get_if<Synchronous>(&definition_.mode);
  // An asynchronous step waits for servers only, for its own sake or the steps' before it.
  if (call.in_pipeline || synchronous == nullptr) {
    for (const int server : pipeline_.WaitingFor()) waiting->add_servers(server);
    return reply;
  }
  std::vector<bool> present(synchronous->trainers, false);
  for (const StepCallPtr& other : waiting_) present[other->trainer_rank] = true;
  for (int rank = 0; rank < synchronous->trainers; ++rank) {
    if (present[rank]) continue;
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
