// Changes that are not steps: how they are proposed and acknowledged, create, delete.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/optimizer_plan.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

// Definitions that are arriving in pages at one time.
constexpr size_t kMaxProposals = 8;

}  // namespace

v1::ProposeReply Coordinator::DoneReply() const {
  v1::ProposeReply reply;
  v1::ProposeReply::Done* done = reply.mutable_done();
  done->set_version(pipeline_.committed());
  done->set_lineage(lineage_);
  if (layout_ != nullptr) done->set_plan_id(layout_->plan.plan_id);
  return reply;
}

void Coordinator::Propose(v1::ProposeRequest request, Caller caller,
                          Reply<v1::ProposeReply> reply) {
  Run([this, request = std::move(request), caller = std::move(caller), reply = std::move(reply)] {
    if (draining_) return reply(absl::UnavailableError("the server is shutting down"));
    switch (request.change_case()) {
      case v1::ProposeRequest::kCreate:
        return ProposeCreate(request, caller, reply);
      case v1::ProposeRequest::kDelete:
        return ProposeDelete(request.header(), reply);
      case v1::ProposeRequest::kAddParamGroup:
        return ProposeAddParamGroup(request, caller, reply);
      case v1::ProposeRequest::kLoad:
        return ProposeLoad(request, caller, reply);
      case v1::ProposeRequest::kRestore:
        return ProposeRestore(request, caller, reply);
      case v1::ProposeRequest::CHANGE_NOT_SET:
        return reply(absl::InvalidArgumentError("the proposal names no change that is known"));
    }
  });
}

std::optional<std::string> Coordinator::Collect(const v1::Page& page,
                                                const Reply<v1::ProposeReply>& reply) {
  if (proposals_.count(page.digest()) == 0 && proposals_.size() >= kMaxProposals) {
    proposals_.erase(proposals_.begin());
  }
  PageCollector& collector = proposals_[page.digest()];
  const absl::Status status = collector.Add(page);
  if (status.ok() && !collector.complete()) {
    v1::ProposeReply need;
    need.mutable_need_page()->set_index(collector.next());
    reply(need);
    return std::nullopt;
  }
  absl::StatusOr<std::string> bytes = status.ok() ? collector.Take() : status;
  proposals_.erase(page.digest());
  if (bytes.ok()) return *std::move(bytes);
  reply(bytes.status());
  return std::nullopt;
}

absl::Status Coordinator::Busy() const {
  return absl::UnavailableError(
      absl::StrCat("optimizer \"", name_, "\": another change is under way; repeat the call"));
}

// ---- create

OptimizerDefinition Coordinator::CreatedDefinition() const {
  OptimizerDefinition created = definition_;
  const size_t groups = layout_->description.created_groups();
  if (groups == 0 || groups >= created.groups.size()) return created;
  created.groups.resize(groups);
  size_t parameters = 0;
  for (const ParamGroup& group : created.groups) parameters += group.params.size();
  created.parameters.resize(parameters);
  created.sharded.resize(parameters);
  return created;
}

const v1::OptimizerDefinition& Coordinator::Described() const {
  return layout_ == nullptr ? v1::OptimizerDefinition::default_instance()
                            : layout_->description.definition();
}

void Coordinator::ProposeCreate(const v1::ProposeRequest& request, Caller caller,
                                Reply<v1::ProposeReply> reply) {
  if (state_ == State::kRecovering) return reply(Recovering());
  if (state_ == State::kLost) return reply(LostStatus());
  const auto session = FindSession(request.header());
  if (!session.ok()) return reply(session.status());
  const std::string& digest = request.create().digest();
  const bool creating = staged_ != nullptr && staged_->kind == Staged::Kind::kCreate;
  const std::string& known = creating ? staged_->key : definition_digest_;
  if (digest != known || known.empty()) {
    const std::optional<std::string> bytes = Collect(request.create(), reply);
    if (!bytes.has_value()) return;
    v1::OptimizerDefinition proposed;
    if (!proposed.ParseFromString(*bytes)) {
      return reply(absl::InvalidArgumentError("the definition does not parse"));
    }
    auto staged = MakeCreation(proposed);
    if (!staged.ok()) return reply(staged.status());
    if (state_ == State::kLive || creating) {
      const absl::Status equal = FirstDifference(
          creating ? staged_->definition : CreatedDefinition(), (*staged)->definition);
      if (!equal.ok()) return reply(equal);
    } else if (staged_ != nullptr) {
      return reply(Busy());
    } else {
      staged_ = *std::move(staged);
      staged_->key = digest;
      staged_->whole_session = (*session)->number;
      state_ = State::kCreating;
    }
  }
  if (state_ == State::kLive) return AnswerWhenCovered(caller, reply, DoneReply());
  staged_->proposers.push_back({(*session)->number, request.staged(), caller, reply});
  AnswerProposers(env_.clock->Now());
}

absl::Status Coordinator::CheckPlan(const OptimizerDefinition& definition, const Plan& plan) const {
  for (const PlannedShard& shard : plan.shards) {
    const Placement& placement = shard.metadata.placement;
    if (placement.device == "cpu") continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter \"", definition.parameters[shard.parameter].name, "\": placement ",
        ToString(placement), ": server ", placement.server_rank, " offers the devices cpu"));
  }
  const bool sharded = std::find(definition.sharded.begin(), definition.sharded.end(), true) !=
                       definition.sharded.end();
  if (sharded && std::holds_alternative<Asynchronous>(definition.mode)) {
    return absl::InvalidArgumentError(
        "an asynchronous optimizer takes whole tensors: every session gives every parameter whole");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Coordinator::Staged>> Coordinator::MakeCreation(
    const v1::OptimizerDefinition& proposed) {
  auto staged = std::make_unique<Staged>();
  SHARDSTEP_ASSIGN_OR_RETURN(staged->definition, DefinitionFromProto(proposed));
  const OptimizerDefinition& definition = staged->definition;
  if (definition.name != name_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the definition names optimizer \"", definition.name, "\", the call \"", name_, "\""));
  }
  const auto* synchronous = std::get_if<Synchronous>(&definition.mode);
  if (synchronous != nullptr && synchronous->trainers > kMaxTrainerRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat(synchronous->trainers, " trainers, expected at most ", kMaxTrainerRanks));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(
      const Plan plan, MakeOptimizerPlan(definition.kind, definition.parameters, env_.servers));
  staged->groups = definition.groups;
  staged->regions_from = definition.sharded;
  for (size_t i = 0; i < definition.parameters.size(); ++i) {
    v1::StagedChange::Tensors* tensors = staged->change.add_tensors();
    tensors->set_parameter(i);
    tensors->set_value(true);
  }
  // Only where there is nothing yet is it more than a comparison.
  if (state_ == State::kAbsent && staged_ == nullptr) {
    SHARDSTEP_RETURN_IF_ERROR(OpenStaging(staged.get(), plan, definition.groups.size()));
  } else {
    SHARDSTEP_RETURN_IF_ERROR(CheckPlan(definition, plan));
  }
  return staged;
}

// ---- acknowledgement

bool Coordinator::Covered() const {
  return env_.durability != Durability::kCheckpoint ||
         (durable_.has_value() && *durable_ >= cover_from_);
}

void Coordinator::AnswerWhenCovered(Caller caller, Reply<v1::ProposeReply> reply,
                                    v1::ProposeReply done) {
  if (Covered()) return reply(done);
  uncovered_.push_back({std::move(caller), std::move(reply), std::move(done)});
  checkpointer_.AskAutomatic();
}

void Coordinator::AnswerUncovered(absl::Time now, const absl::Status& failed) {
  std::vector<Uncovered> still;
  for (Uncovered& waiting : std::exchange(uncovered_, {})) {
    if (!failed.ok()) {
      waiting.reply(absl::Status(
          failed.code(),
          absl::StrCat("optimizer \"", name_,
                       "\": the change is made, and not durable yet: ", failed.message())));
    } else if (Covered()) {
      waiting.reply(waiting.done);
    } else if (now >= waiting.caller.answer_by) {
      v1::ProposeReply pending;
      uint64_t done = 0;
      uint64_t total = 0;
      checkpointer_.GetProgress(&done, &total);
      pending.mutable_pending()->set_bytes_done(done);
      pending.mutable_pending()->set_bytes_total(total);
      waiting.reply(pending);
    } else {
      still.push_back(std::move(waiting));
    }
  }
  for (Uncovered& waiting : still) uncovered_.push_back(std::move(waiting));
  if (!uncovered_.empty()) checkpointer_.AskAutomatic();
}

// ---- delete

absl::Status Coordinator::CheckDeleted(const v1::CallHeader& header) const {
  const bool none = state_ == State::kAbsent && staged_ == nullptr;
  // An earlier coordinator may have deleted it on some servers only.
  if (none) SHARDSTEP_RETURN_IF_ERROR(CheckAllThere());
  // What is being created now was not there when that lineage was.
  const bool anew = lineage_ == 0 && header.lineage() != 0;
  return none || anew ? NoSuchOptimizer(name_, {}) : CheckBeliefs(header, Facts());
}

void Coordinator::ProposeDelete(const v1::CallHeader& header, Reply<v1::ProposeReply> reply) {
  if (state_ == State::kRecovering) return reply(Recovering());
  const absl::Status stands = CheckDeleted(header);
  if (!stands.ok()) return reply(stands);
  if (staged_ != nullptr) {
    if (staged_->preparing) return reply(Busy());
    DropStaged(absl::AbortedError(absl::StrCat("optimizer \"", name_, "\" was deleted")));
    if (state_ == State::kAbsent) return reply(DoneReply());
  }
  Delete(header, std::move(reply));
}

void Coordinator::Delete(const v1::CallHeader& header, Reply<v1::ProposeReply> reply) {
  RunAlone([this, header, reply = std::move(reply)] {
    // What went before it may have been its own first attempt.
    const absl::Status stands = CheckDeleted(header);
    if (!stands.ok()) {
      reply(stands);
      return PumpAlone();
    }
    auto change = std::make_unique<Change>();
    change->request.mutable_delete_();
    change->version = 0;
    change->finished = [this, reply](const Change&, const absl::Status& status) {
      if (!status.ok()) return reply(status);
      const v1::ProposeReply done = DoneReply();
      Forget();
      const absl::Status gone = NoSuchOptimizer(name_, {});
      FailWaiting(gone);
      snapshots_.Clear();
      FailSnapshotWaiters(gone);
      checkpointer_.FailAll(gone);
      AnswerUncovered(absl::InfinitePast(), gone);
      reply(done);
    };
    pipeline_.Start(std::move(change));
  });
}

void Coordinator::Forget() {
  state_ = State::kAbsent;
  layout_ = nullptr;
  groups_ = nullptr;
  definition_ = OptimizerDefinition();
  definition_digest_.clear();
  description_stale_ = true;
  lineage_ = parent_lineage_ = lineage_ordinal_ = 0;
  calls_ = CommittedCalls();
  last_rewind_ = Rewind();
  last_checkpoint_.clear();
  durable_.reset();
}

void Coordinator::RunAlone(std::function<void()> change) {
  alone_.push_back(std::move(change));
  PumpAlone();
}

void Coordinator::PumpAlone() {
  if (alone_.empty() || !pipeline_.empty()) return PumpSteps();
  const std::function<void()> change = std::move(alone_.front());
  alone_.pop_front();
  change();
}

}  // namespace shardstep
