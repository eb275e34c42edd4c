// What is told of an optimizer: live, of a staging, of a snapshot.

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

int64_t ElementsOf(const OptimizerDefinition& definition) {
  int64_t elements = 0;
  for (const ParameterShape& parameter : definition.parameters) {
    elements += NumElements(parameter.sizes).value_or(0);
  }
  return elements;
}

}  // namespace

SnapshotFacts Coordinator::SnapshotFactsNow(v1::SnapshotKind kind) const {
  SnapshotFacts facts;
  facts.layout = layout_;
  facts.groups = groups_;
  if (kind == v1::EVERYTHING) facts.trainers = calls_.TrainerStates();
  return facts;
}

v1::Description Coordinator::DescriptionOf(const SnapshotFacts& facts) const {
  v1::Description description = facts.layout->description;
  *description.mutable_groups() = GroupsToProto(*facts.groups, facts.layout->parameters);
  for (const v1::TrainerState& trainer : facts.trainers) *description.add_trainers() = trainer;
  return description;
}

void Coordinator::Describe(v1::DescribeRequest request, Reply<v1::DescribeReply> reply) {
  Run([this, request = std::move(request), reply = std::move(reply)] {
    v1::DescribeReply described;
    const PagedMessage* pages = &description_;
    if (request.staging() != 0) {
      if (staged_ == nullptr || staged_->staging != request.staging()) {
        return reply(absl::AbortedError(absl::StrCat(
            "optimizer \"", name_, "\": staging ", request.staging(), " is gone; propose again")));
      }
      pages = &staged_->description;
    } else if (request.snapshot() != 0) {
      SnapshotTable::Snapshot* const snapshot = snapshots_.Find(request.snapshot());
      if (snapshot == nullptr) return reply(SnapshotGone(request.snapshot()));
      if (!snapshot->facts.pages.has_value()) {
        snapshot->facts.pages.emplace(DescriptionOf(snapshot->facts).SerializeAsString());
      }
      pages = &*snapshot->facts.pages;
      described.set_version(snapshot->version);
      described.set_lineage(lineage_);
    } else {
      const absl::Status live = CheckLive(request.header());
      if (!live.ok()) return reply(live);
      if (description_stale_) {
        description_ =
            PagedMessage(DescriptionOf(SnapshotFactsNow(v1::PARAMETERS)).SerializeAsString());
        description_stale_ = false;
      }
      described.set_version(pipeline_.committed());
      described.set_lineage(lineage_);
      described.set_durable_version(durable_version());
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
      case State::kRecovering:
        summary.set_state("recovering");
        break;
      case State::kCreating:
        summary.set_state("creating");
        definition = &staged_->definition;
        summary.set_shards(staged_->change.description().plan().shards_size());
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
    summary.set_durable_version(durable_version());
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
