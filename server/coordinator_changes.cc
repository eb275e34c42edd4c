// Changes that are not steps: create and delete; and what describes their result.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

// Definitions that are arriving in pages at one time.
constexpr size_t kMaxProposals = 8;

int64_t ElementsOf(const OptimizerDefinition& definition) {
  int64_t elements = 0;
  for (const ParameterShape& parameter : definition.parameters) {
    elements += NumElements(parameter.sizes).value_or(0);
  }
  return elements;
}

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
        return ProposeDelete(caller, reply);
      case v1::ProposeRequest::kAddParamGroup:
        return reply(absl::UnimplementedError("this release does not add parameter groups"));
      case v1::ProposeRequest::kLoad:
        return reply(absl::UnimplementedError("this release does not load state dicts"));
      case v1::ProposeRequest::kRestore:
        return reply(absl::UnimplementedError("this release does not restore checkpoints"));
      case v1::ProposeRequest::CHANGE_NOT_SET:
        return reply(absl::InvalidArgumentError("the proposal names no change that is known"));
    }
  });
}

// ---- create

void Coordinator::ProposeCreate(const v1::ProposeRequest& request, Caller caller,
                                Reply<v1::ProposeReply> reply) {
  if (state_ == State::kLost) return reply(ShardsLost(Facts(), lost_by_));
  const auto session = FindSession(request.header());
  if (!session.ok()) return reply(session.status());
  const v1::Page& page = request.create();
  const std::string& known = creation_ != nullptr ? creation_->digest : definition_digest_;
  if (page.digest() != known || known.empty()) {
    if (proposals_.count(page.digest()) == 0 && proposals_.size() >= kMaxProposals) {
      proposals_.erase(proposals_.begin());
    }
    PageCollector& collector = proposals_[page.digest()];
    absl::Status status = collector.Add(page);
    if (status.ok() && !collector.complete()) {
      v1::ProposeReply need;
      need.mutable_need_page()->set_index(collector.next());
      return reply(need);
    }
    v1::OptimizerDefinition proposed;
    if (status.ok()) {
      auto bytes = collector.Take();
      status = bytes.status();
      if (bytes.ok() && !proposed.ParseFromString(*bytes)) {
        status = absl::InvalidArgumentError("the definition does not parse");
      }
    }
    proposals_.erase(page.digest());
    if (!status.ok()) return reply(status);
    auto creation = MakeCreation(proposed);
    if (!creation.ok()) return reply(creation.status());
    if (state_ == State::kLive || creation_ != nullptr) {
      const absl::Status equal = FirstDifference(
          creation_ != nullptr ? creation_->definition : definition_, (*creation)->definition);
      if (!equal.ok()) return reply(equal);
    } else {
      creation_ = *std::move(creation);
      creation_->digest = page.digest();
      creation_->whole_session = (*session)->number;
      state_ = State::kCreating;
      for (uint32_t i = 0; i < creation_->pages.count(); ++i) {
        v1::PeerMessage message;
        message.mutable_stage_create()->set_staging(creation_->staging);
        // Below count() there is a page.
        *message.mutable_stage_create()->mutable_description() = creation_->pages.page(i).value();
        Broadcast(message);
      }
    }
  }
  if (state_ == State::kLive) return reply(DoneReply());
  creation_->proposers.push_back({(*session)->number, request.staged(), caller, reply});
  AnswerProposers(env_.clock->Now());
}

absl::StatusOr<std::unique_ptr<Coordinator::Creation>> Coordinator::MakeCreation(
    const v1::OptimizerDefinition& proposed) {
  auto creation = std::make_unique<Creation>();
  SHARDSTEP_ASSIGN_OR_RETURN(creation->definition, DefinitionFromProto(proposed));
  const OptimizerDefinition& definition = creation->definition;
  if (definition.name != name_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the definition names optimizer \"", definition.name, "\", the call \"", name_, "\""));
  }
  if (const auto* synchronous = std::get_if<Synchronous>(&definition.mode)) {
    if (synchronous->trainers > kMaxTrainerRanks) {
      return absl::InvalidArgumentError(
          absl::StrCat(synchronous->trainers, " trainers, expected at most ", kMaxTrainerRanks));
    }
  } else if (std::find(definition.sharded.begin(), definition.sharded.end(), true) !=
             definition.sharded.end()) {
    return absl::InvalidArgumentError(
        "an asynchronous optimizer takes whole tensors: every session gives every parameter whole");
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const Plan plan, MakePlan(definition.parameters, env_.servers));
  for (const PlannedShard& shard : plan.shards) {
    const Placement& placement = shard.metadata.placement;
    if (placement.device == "cpu") continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter \"", definition.parameters[shard.parameter].name, "\": placement ",
        ToString(placement), ": server ", placement.server_rank, " offers the devices cpu"));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const auto optimizer, MakeOptimizer(definition.kind));
  creation->staging = ++last_staging_;
  *creation->description.mutable_definition() = proposed;
  *creation->description.mutable_plan() = PlanToProto(plan);
  *creation->description.mutable_groups() = GroupsToProto(definition.groups, definition.parameters);
  for (const StateSpec& state : optimizer->AllStates()) {
    v1::StateSpec* spec = creation->description.add_states();
    spec->set_name(state.name);
    spec->set_scalar(state.kind == StateSpec::Kind::kScalar);
    if (spec->scalar()) spec->set_dtype(DTypeToProto(state.dtype));
  }
  creation->pages = PagedMessage(creation->description.SerializeAsString());
  if (creation->pages.serialized().size() > kMaxPagedBytes) {
    return absl::InvalidArgumentError(absl::StrCat("definition and plan take ",
                                                   creation->pages.serialized().size(),
                                                   " bytes, expected at most ", kMaxPagedBytes));
  }
  for (int server = 0; server < env_.servers; ++server) {
    creation->unaware.insert(server);
    creation->incomplete.insert(server);
  }
  return creation;
}

void Coordinator::OnStagingState(int server, const v1::StagingState& state) {
  if (creation_ == nullptr || creation_->staging != state.staging()) return;
  if (state.has_error()) return DropCreation(FromRichStatus(state.error()));
  creation_->unaware.erase(server);
  if (state.complete()) creation_->incomplete.erase(server);
  AnswerProposers(env_.clock->Now());
  if (creation_->incomplete.empty() && !creation_->preparing) {
    creation_->preparing = true;
    RunAlone([this] { PrepareCreation(); });
  }
}

void Coordinator::AnswerProposers(absl::Time now) {
  if (creation_ == nullptr) return;
  std::vector<Proposer> still;
  for (Proposer& proposer : std::exchange(creation_->proposers, {})) {
    const Session* session = sessions_.Find(proposer.session);
    const bool whole = proposer.session == creation_->whole_session;
    const bool gives = whole || (session != nullptr && !session->regions.empty());
    if (session == nullptr) {
      proposer.reply(Fenced(Facts(), proposer.session, "was replaced by a newer session"));
    } else if (gives && creation_->unaware.empty() && proposer.staged != creation_->staging) {
      creation_->handed.insert(proposer.session);
      v1::ProposeReply reply;
      reply.mutable_staging()->set_staging(creation_->staging);
      reply.mutable_staging()->set_plan_id(creation_->description.plan().plan_id());
      reply.mutable_staging()->set_whole_tensors(whole);
      proposer.reply(reply);
    } else if (now >= proposer.caller.answer_by) {
      v1::ProposeReply reply;
      v1::ProposeReply::Pending* pending = reply.mutable_pending();
      for (const uint64_t number : creation_->handed) {
        const Session* writer = sessions_.Find(number);
        if (writer != nullptr) pending->add_staged_by(writer->trainer_rank);
      }
      proposer.reply(reply);
    } else {
      still.push_back(std::move(proposer));
    }
  }
  for (Proposer& proposer : still) creation_->proposers.push_back(std::move(proposer));
}

void Coordinator::DropCreation(const absl::Status& status) {
  const std::unique_ptr<Creation> dropped = std::move(creation_);
  if (state_ == State::kCreating) state_ = State::kAbsent;
  v1::PeerMessage message;
  message.mutable_drop_staging()->set_staging(dropped->staging);
  Broadcast(message);
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

void Coordinator::PrepareCreation() {
  auto layout = Layout::Make(creation_->description, /*server_rank=*/0);
  if (!layout.ok()) return DropCreation(layout.status());
  auto change = std::make_unique<Change>();
  const uint64_t lineage = ++last_lineage_;
  change->request.mutable_create()->set_staging(creation_->staging);
  change->request.mutable_create()->set_lineage(lineage);
  change->finished = [this, lineage, layout = *layout](const Change&, const absl::Status& status) {
    if (creation_ == nullptr) return;
    if (!status.ok()) return DropCreation(status);
    const std::unique_ptr<Creation> created = std::move(creation_);
    state_ = State::kLive;
    lineage_ = lineage;
    layout_ = layout;
    definition_ = std::move(created->definition);
    definition_digest_ = created->digest;
    groups_ = definition_.groups;
    description_stale_ = true;
    for (Proposer& proposer : created->proposers) proposer.reply(DoneReply());
  };
  pipeline_.Start(std::move(change));
}

// ---- delete

void Coordinator::ProposeDelete(Caller, Reply<v1::ProposeReply> reply) {
  if (state_ == State::kAbsent) return reply(NoSuchOptimizer(name_, {}));
  if (state_ == State::kCreating) {
    if (creation_->preparing) {
      return reply(absl::UnavailableError(
          absl::StrCat("optimizer \"", name_, "\" is being created; repeat the call")));
    }
    DropCreation(absl::AbortedError(absl::StrCat("optimizer \"", name_, "\" was deleted")));
    return reply(DoneReply());
  }
  RunAlone([this, reply = std::move(reply)] {
    auto change = std::make_unique<Change>();
    change->request.mutable_delete_();
    change->finished = [this, reply](const Change&, const absl::Status& status) {
      if (!status.ok()) return reply(status);
      const v1::ProposeReply done = DoneReply();
      state_ = State::kAbsent;
      layout_ = nullptr;
      definition_digest_.clear();
      lineage_ = 0;
      const absl::Status gone = NoSuchOptimizer(name_, {});
      FailWaiting(gone);
      snapshots_.Clear();
      FailSnapshotWaiters(gone);
      reply(done);
    };
    pipeline_.Start(std::move(change));
  });
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

// ---- descriptions

void Coordinator::Describe(v1::DescribeRequest request, Reply<v1::DescribeReply> reply) {
  Run([this, request = std::move(request), reply = std::move(reply)] {
    v1::DescribeReply described;
    const PagedMessage* pages = &description_;
    if (request.staging() != 0) {
      if (creation_ == nullptr || creation_->staging != request.staging()) {
        return reply(absl::AbortedError(absl::StrCat(
            "optimizer \"", name_, "\": staging ", request.staging(), " is gone; propose again")));
      }
      pages = &creation_->pages;
    } else {
      const absl::Status live = CheckLive(request.header());
      if (!live.ok()) return reply(live);
      if (description_stale_) {
        v1::Description current = layout_->description;
        *current.mutable_groups() = GroupsToProto(groups_, definition_.parameters);
        description_ = PagedMessage(current.SerializeAsString());
        description_stale_ = false;
      }
      described.set_version(pipeline_.committed());
      described.set_lineage(lineage_);
    }
    auto page = pages->page(request.page());
    if (!page.ok()) return reply(page.status());
    *described.mutable_description() = *std::move(page);
    reply(described);
  });
}

void Coordinator::Summarize(Reply<v1::ListOptimizersReply::Optimizer> reply) {
  Run([this, reply = std::move(reply)] {
    v1::ListOptimizersReply::Optimizer summary;
    summary.set_name(name_);
    const OptimizerDefinition* definition = nullptr;
    switch (state_) {
      case State::kAbsent:
        return reply(NoSuchOptimizer(name_, {}));
      case State::kCreating:
        summary.set_state("creating");
        definition = &creation_->definition;
        summary.set_shards(creation_->description.plan().shards_size());
        break;
      case State::kLost:
        summary.set_state("shards lost");
        summary.set_version(lost_version_);
        break;
      case State::kLive:
        summary.set_state("live");
        definition = &definition_;
        summary.set_version(pipeline_.committed());
        summary.set_shards(layout_->plan.shards.size());
        break;
    }
    summary.set_lineage(lineage_);
    if (definition != nullptr) {
      summary.set_kind(definition->kind);
      summary.set_parameters(definition->parameters.size());
      summary.set_elements(ElementsOf(*definition));
      *summary.mutable_mode() = ModeToProto(definition->mode);
    }
    reply(summary);
  });
}

}  // namespace shardstep
