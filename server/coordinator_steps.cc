// Steps: from the calls of the trainers to a change, and from its end to their replies.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/util/message_differencer.h"
#include "shardstep/optim/options/coupling.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/faults.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr size_t kMaxInFlight = 32;

}  // namespace

size_t Coordinator::MaxInFlight() const {
  return CouplingOf(definition_.kind).reduce_rounds > 0 ? 1 : kMaxInFlight;
}

std::vector<int> Coordinator::LostParticipants() {
  std::vector<int> lost;
  const auto* synchronous = std::get_if<Synchronous>(&definition_.mode);
  if (synchronous == nullptr) return lost;
  for (const auto& [rank, session] : sessions_.live()) {
    if (rank < synchronous->trainers && !session.closed && sessions_.Lapsed(session)) {
      lost.push_back(rank);
    }
  }
  return lost;
}

void Coordinator::PumpSteps() {
  if (state_ != State::kLive || !alone_.empty()) return;
  // A change that is no step travels alone.
  if (!pipeline_.empty() && !pipeline_.changes().back()->request.has_step()) return;
  const auto* synchronous = std::get_if<Synchronous>(&definition_.mode);
  if (synchronous == nullptr) {
    // One round of prepares at a time: what comes meanwhile travels together in the next. With a
    // log a round takes as long as the disk, and what is called meanwhile is summed beside it.
    if (!wal() && !pipeline_.prepared()) return;
    while (!waiting_.empty() && pipeline_.size() < MaxInFlight()) {
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
    if (waiting_.size() < static_cast<size_t>(synchronous->trainers)) return;
    std::vector<StepCallPtr> calls(synchronous->trainers);
    int present = 0;
    for (const StepCallPtr& call : waiting_) {
      if (calls[call->trainer_rank] != nullptr) continue;
      calls[call->trainer_rank] = call;
      ++present;
    }
    if (present < synchronous->trainers || pipeline_.size() >= MaxInFlight()) return;
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
    if (!call->request.trainer_state().empty()) {
      contribution->set_trainer_state(std::move(*call->request.mutable_trainer_state()));
    }
    if (call->request.has_partial()) {
      *contribution->mutable_partial() = std::move(*call->request.mutable_partial());
    }
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
  const v1::StepReply::Committed committed = CommittedReply(
      change.request.version(), lineage_, change.verdict->decision, durable_version());
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
    if (!call->reply) continue;
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

}  // namespace shardstep
