// Staging: what a change brings along is gathered on all servers, then becomes the optimizer.

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/described_states.h"
#include "shardstep/server/faults.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

absl::Status Coordinator::OpenStaging(Staged* staged, const Plan& plan, size_t created_groups) {
  const OptimizerDefinition& definition = staged->definition;
  SHARDSTEP_RETURN_IF_ERROR(CheckPlan(definition, plan));
  SHARDSTEP_ASSIGN_OR_RETURN(const auto optimizer, MakeOptimizer(definition.kind));
  v1::Description* description = staged->change.mutable_description();
  *description =
      DescriptionToProto({definition, plan, staged->groups,
                          DescribedStates(optimizer->AllStates(), definition.parameters)});
  description->set_created_groups(created_groups);
  staged->description = PagedMessage(description->SerializeAsString());
  const PagedMessage pages(staged->change.SerializeAsString());
  if (pages.serialized().size() > kMaxPagedBytes) {
    return absl::InvalidArgumentError(absl::StrCat("definition and plan take ",
                                                   pages.serialized().size(),
                                                   " bytes, expected at most ", kMaxPagedBytes));
  }
  staged->staging = ++last_staging_;
  for (int server = 0; server < env_.servers; ++server) {
    staged->unaware.insert(server);
    staged->incomplete.insert(server);
  }
  for (uint32_t i = 0; i < pages.count(); ++i) {
    v1::PeerMessage message;
    message.mutable_stage()->set_staging(staged->staging);
    // Below count() there is a page.
    *message.mutable_stage()->mutable_change() = pages.page(i).value();
    Broadcast(message);
  }
  SHARDSTEP_PASS("coordinator.staging_opened");
  return absl::OkStatus();
}

void Coordinator::OnStagingState(int server, const v1::StagingState& state) {
  if (staged_ == nullptr || staged_->staging != state.staging()) return;
  if (state.has_error()) return DropStaged(FromRichStatus(state.error()));
  staged_->unaware.erase(server);
  if (state.complete()) staged_->incomplete.erase(server);
  AnswerProposers(env_.clock->Now());
  if (staged_->incomplete.empty() && !staged_->preparing) {
    staged_->preparing = true;
    RunAlone([this] { PrepareStaged(); });
  }
}

void Coordinator::OnFileProgress(int server, const v1::FileProgress& progress) {
  if (progress.checkpoint() != 0) return checkpointer_.OnProgress(server, progress);
  if (staged_ != nullptr && staged_->staging == progress.staging()) {
    staged_->progress[server] = progress;
  }
}

void Coordinator::AnswerProposers(absl::Time now) {
  if (staged_ == nullptr) return;
  const bool by_clients = staged_->staging != 0 && staged_->change.checkpoint_id().empty();
  const bool by_regions = std::find(staged_->regions_from.begin(), staged_->regions_from.end(),
                                    true) != staged_->regions_from.end();
  std::vector<Proposer> still;
  for (Proposer& proposer : std::exchange(staged_->proposers, {})) {
    const Session* session = sessions_.Find(proposer.session);
    const bool whole = proposer.session == staged_->whole_session;
    const bool gives = whole || (by_regions && session != nullptr && !session->regions.empty());
    if (session == nullptr && proposer.session != 0) {
      proposer.reply(Fenced(Facts(), proposer.session, "was replaced by a newer session"));
    } else if (by_clients && gives && staged_->unaware.empty() &&
               proposer.staged != staged_->staging) {
      staged_->handed.insert(proposer.session);
      v1::ProposeReply reply;
      reply.mutable_staging()->set_staging(staged_->staging);
      reply.mutable_staging()->set_plan_id(staged_->change.description().plan().plan_id());
      reply.mutable_staging()->set_whole_tensors(whole);
      proposer.reply(reply);
    } else if (now >= proposer.caller.answer_by) {
      v1::ProposeReply reply;
      v1::ProposeReply::Pending* pending = reply.mutable_pending();
      for (const uint64_t number : staged_->handed) {
        const Session* writer = sessions_.Find(number);
        if (writer != nullptr) pending->add_staged_by(writer->trainer_rank);
      }
      for (const auto& [server, progress] : staged_->progress) {
        pending->set_bytes_done(pending->bytes_done() + progress.bytes_done());
        pending->set_bytes_total(pending->bytes_total() + progress.bytes_total());
      }
      proposer.reply(reply);
    } else {
      still.push_back(std::move(proposer));
    }
  }
  for (Proposer& proposer : still) staged_->proposers.push_back(std::move(proposer));
}

void Coordinator::DropStaged(const absl::Status& status) {
  const std::unique_ptr<Staged> dropped = std::move(staged_);
  if (state_ == State::kCreating) state_ = State::kAbsent;
  if (dropped->staging != 0) {
    v1::PeerMessage message;
    message.mutable_drop_staging()->set_staging(dropped->staging);
    Broadcast(message);
  }
  v1::ProposeReply again;
  again.mutable_pending();
  for (Proposer& proposer : dropped->proposers) {
    if (status.ok()) {
      proposer.reply(again);
    } else {
      proposer.reply(status);
    }
  }
}

void Coordinator::PrepareStaged() {
  // It was dropped while it waited for its turn.
  if (staged_ == nullptr || !staged_->preparing) return PumpAlone();
  auto layout = Layout::Make(staged_->change.description(), /*server_rank=*/0);
  if (!layout.ok()) {
    DropStaged(layout.status());
    return PumpAlone();
  }
  const bool extends = staged_->kind == Staged::Kind::kAddParamGroup;
  const uint64_t lineage = extends ? lineage_ : ++last_lineage_;
  auto change = std::make_unique<Change>();
  change->request.mutable_staged()->set_staging(staged_->staging);
  change->request.mutable_staged()->set_lineage(lineage);
  if (!extends) change->version = staged_->version;
  if (env_.durability == Durability::kWal) {
    *change->request.mutable_staged()->mutable_memory() = MemoryAfter(*staged_, lineage);
  }
  change->finished = [this, lineage, layout = *layout](const Change&, const absl::Status& status) {
    if (staged_ == nullptr) return;
    if (!status.ok()) return DropStaged(status);
    FinishStaged(layout, lineage);
  };
  pipeline_.Start(std::move(change));
  SHARDSTEP_PASS("coordinator.staged_started");
}

CommittedCalls Coordinator::CallsAfter(const Staged& staged) const {
  CommittedCalls calls = staged.kind == Staged::Kind::kCreate ? CommittedCalls() : calls_;
  if (staged.kind == Staged::Kind::kRestore) {
    calls.RestoreLast(staged.trainers);
  } else if (staged.sets_trainers) {
    calls.LoadTrainerStates(staged.trainers);
  }
  return calls;
}

v1::CoordinatorMemory Coordinator::MemoryAfter(const Staged& staged, uint64_t lineage) const {
  v1::CoordinatorMemory memory;
  CallsAfter(staged).AddTo(&memory);
  memory.set_last_session(std::max(sessions_.last_number(), staged.last_session));
  const bool rewinds = staged.cause != v1::RollBack::CAUSE_UNSPECIFIED;
  const bool extends = lineage == lineage_;
  if (staged.kind != Staged::Kind::kRestore) {
    memory.set_definition_digest(staged.kind == Staged::Kind::kCreate ? staged.key
                                                                      : definition_digest_);
  }
  memory.set_parent_lineage(extends ? parent_lineage_ : staged.replaced_lineage);
  memory.set_rewind_key(rewinds ? staged.key : last_rewind_.key);
  memory.set_rewind_cause(rewinds ? staged.cause : last_rewind_.cause);
  *memory.mutable_rewind_report() = rewinds ? staged.report : last_rewind_.report;
  if (rewinds) {
    memory.mutable_rewind_report()->set_version(staged.version);
    memory.mutable_rewind_report()->set_lineage(lineage);
    memory.mutable_rewind_report()->set_plan_id(staged.change.description().plan().plan_id());
  }
  return memory;
}

void Coordinator::FinishStaged(std::shared_ptr<const Layout> layout, uint64_t lineage) {
  const std::unique_ptr<Staged> done = std::move(staged_);
  const Staged::Kind kind = done->kind;
  const bool rewinds = done->cause != v1::RollBack::CAUSE_UNSPECIFIED;
  state_ = State::kLive;
  layout_ = std::move(layout);
  definition_ = std::move(done->definition);
  if (done->change.keep_groups()) {
    // Steps may have set options since it was staged.
    auto groups = std::make_shared<std::vector<ParamGroup>>(*groups_);
    groups->insert(groups->end(), done->groups.begin() + groups->size(), done->groups.end());
    groups_ = std::move(groups);
  } else {
    groups_ = std::make_shared<const std::vector<ParamGroup>>(std::move(done->groups));
  }
  description_stale_ = true;
  cover_from_ = pipeline_.committed();
  if (kind == Staged::Kind::kCreate) definition_digest_ = done->key;
  if (kind == Staged::Kind::kRestore) definition_digest_.clear();
  if (lineage != lineage_) {
    parent_lineage_ = done->replaced_lineage;
    lineage_ = lineage;
    lineage_ordinal_ = 0;
    durable_.reset();
  }
  if (kind == Staged::Kind::kRestore) {
    sessions_.RaiseLastNumber(done->last_session);
    durable_ = pipeline_.committed();
    NoteCheckpoint(done->change.checkpoint_id(), pipeline_.committed());
  }
  calls_ = CallsAfter(*done);
  SHARDSTEP_PASS("coordinator.staged_finished");
  v1::ProposeReply reply = DoneReply();
  *reply.mutable_done()->mutable_missing_keys() = done->report.missing_keys();
  *reply.mutable_done()->mutable_unexpected_keys() = done->report.unexpected_keys();
  *reply.mutable_done()->mutable_placed_anew() = done->report.placed_anew();
  if (rewinds) {
    last_rewind_ = {done->key, done->cause, reply.done()};
    RollBack();
  }
  for (Proposer& proposer : done->proposers) {
    AnswerWhenCovered(proposer.caller, proposer.reply, reply);
  }
  PumpSteps();
}

}  // namespace shardstep
