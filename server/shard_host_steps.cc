// How a shard host executes steps: what is reduced when one is prepared, and the update when it is
// committed.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/server/chain_hash.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

// What servers must agree on of a step that was decided.
std::string DescriptorOf(const v1::PrepareStep& step, const v1::Commit& commit) {
  std::string descriptor = absl::StrCat(commit.version(), " ");
  commit.decision().AppendToString(&descriptor);
  const auto& all = step.contributions();
  if (std::all_of(all.begin(), all.end(),
                  [](const v1::Contribution& c) { return c.trainer_state().empty(); })) {
    step.AppendToString(&descriptor);
    return descriptor;
  }
  v1::PrepareStep stateless = step;
  for (v1::Contribution& contribution : *stateless.mutable_contributions()) {
    contribution.clear_trainer_state();
  }
  stateless.AppendToString(&descriptor);
  return descriptor;
}

}  // namespace

std::vector<OptionMap> ShardHost::OptionsAt(const v1::Prepare& prepare) const {
  std::vector<OptionMap> options;
  for (const ParamGroup& group : optimizer_->groups()) options.push_back(group.options);
  const auto set = [&options](const v1::PrepareStep& step) {
    for (const v1::OptionSetting& setting : step.set_options()) {
      const auto value = OptionValueFromProto(setting.option().value());
      if (!value.ok() || setting.group() >= options.size()) continue;
      options[setting.group()].Set(setting.option().name(), *value);
    }
  };
  for (const auto& [version, change] : prepared_) {
    if (version < prepare.version()) set(change.request->step());
  }
  set(prepare.step());
  return options;
}

void ShardHost::PrepareStep(std::shared_ptr<const v1::Prepare> prepare) {
  const v1::Prepare& request = *prepare;
  PreparedChange change;
  change.request = std::move(prepare);
  v1::Prepared& answer = change.answer;
  answer.set_version(request.version());
  *answer.mutable_ballot() = request.ballot();
  absl::Status status = CheckLive({});
  status.Update(SHARDSTEP_FAILPOINT("host.collect"));
  std::vector<std::vector<std::shared_ptr<const Push>>> pushes;
  std::vector<v1::PushRange> missing;
  for (const v1::Contribution& contribution : request.step().contributions()) {
    if (!status.ok()) break;
    auto collected = pushes_.Collect(contribution, &missing);
    status = collected.status();
    if (collected.ok()) pushes.push_back(*std::move(collected));
  }
  for (const v1::PushRange& range : missing) *answer.add_missing() = range;
  if (SHARDSTEP_BUG("reduce_in_order_of_arrival")) std::reverse(pushes.begin(), pushes.end());
  if (status.ok() && missing.empty()) {
    // The log's record needs the bytes.
    const Reduction::Keep keep = log_ == nullptr && optimizer_->TakesSums()
                                     ? Reduction::Keep::kAny
                                     : Reduction::Keep::kTensor;
    auto created = PreparedStep::Create(layout_, request.step(), pushes, OptionsAt(request), keep);
    status = created.status();
    if (created.ok()) change.step = *std::move(created);
  }
  if (change.step == nullptr) {
    if (!status.ok()) *answer.mutable_error() = ToRichStatus(status);
    AnswerPrepared(answer);
    return Done();
  }
  const auto reduced = std::make_shared<PreparedChange>(std::move(change));
  shardstep::PreparedStep* const step = reduced->step.get();
  RunBlocks(
      step->elements(), step->num_blocks(), [step](size_t block) { step->RunBlock(block); },
      [self = shared_from_this(), this, reduced] {
        const absl::Status finished = reduced->step->Finish(&reduced->answer);
        SHARDSTEP_PASS("host.reduced");
        if (finished.ok()) {
          KeepPrepared(std::move(*reduced));
        } else {
          *reduced->answer.mutable_error() = ToRichStatus(finished);
          AnswerPrepared(reduced->answer);
        }
        Done();
      });
}

void ShardHost::CommitStep(const v1::Commit& commit, PreparedChange change) {
  const std::shared_ptr<const v1::Prepare> request = change.request;
  if (commit.decision().outcome() != v1::Decision::COMMIT) {
    const absl::Status status = SetOptions(request->step());
    return status.ok() ? FinishStep(commit, request->step()) : Applied(commit, status);
  }
  const auto decided = std::make_shared<const v1::Commit>(commit);
  RunRounds(change, decided->decision(),
            [self = shared_from_this(), this, decided, request](const absl::Status& status) {
              if (!status.ok()) return Applied(*decided, status);
              RunStepBlocks([self, this, decided, request] {
                absl::Status finished = optimizer_->FinishStep();
                rounds_.reset();
                finished.Update(SetOptions(request->step()));
                if (!finished.ok()) return Applied(*decided, finished);
                FinishStep(*decided, request->step());
              });
            });
}

absl::Status ShardHost::SetOptions(const v1::PrepareStep& step) {
  absl::Status status;
  for (const v1::OptionSetting& setting : step.set_options()) {
    auto value = OptionValueFromProto(setting.option().value());
    status.Update(value.status());
    if (value.ok()) {
      status.Update(optimizer_->SetOption(setting.group(), setting.option().name(), *value));
    }
  }
  return status;
}

void ShardHost::FinishStep(const v1::Commit& commit, const v1::PrepareStep& request) {
  version_ = commit.version();
  chain_hash_ = ChainHash(chain_hash_, DescriptorOf(request, commit));
  for (const v1::Contribution& contribution : request.contributions()) {
    const v1::PushRange& pushes = contribution.pushes();
    const bool consumed = !request.options().keep_gradients() && pushes.first() <= pushes.last();
    pushes_.DropBelow(pushes.session(), consumed ? pushes.last() + 1 : 0);
    pushes_.DropBelow(pushes.session(), contribution.first_live_push());
  }
  if (wal() && env_.server_rank == kCoordinatorRank) {
    // What is committed is durable.
    const v1::StepReply::Committed committed =
        CommittedReply(version_, lineage_, commit.decision(), version_);
    for (const v1::Contribution& contribution : request.contributions()) {
      calls_.Note(contribution, committed);
    }
  }
  Applied(commit, absl::OkStatus());
}

}  // namespace shardstep
