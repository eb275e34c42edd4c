// How a shard host takes a step through its rounds of sums over all shards.

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/ballot.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/server/step_sums.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

void ShardHost::OnReduce(const v1::Reduce& reduce) {
  SHARDSTEP_PASS("host.reduce");
  auto reply = std::make_shared<v1::PeerReply>();
  v1::Reduced* answer = reply->mutable_reduced();
  answer->set_version(reduce.version());
  *answer->mutable_ballot() = reduce.ballot();
  answer->set_round(reduce.decision().reductions_size());
  const auto finish = [self = shared_from_this(), this, reply, answer](absl::Status status) {
    if (status.ok()) {
      for (v1::ShardSum& sum : ShardSumsToProto(*layout_, *rounds_->sums)) {
        *answer->add_sums() = std::move(sum);
      }
    } else {
      AbandonRounds();
      *answer->mutable_error() = ToRichStatus(status);
    }
    Answer(std::move(*reply));
    Done();
  };
  const auto found = prepared_.find(reduce.version());
  if (found == prepared_.end() || found->second.step == nullptr ||
      !SameBallot(found->second.answer.ballot(), reduce.ballot())) {
    return finish(absl::FailedPreconditionError(
        absl::StrCat("server ", env_.server_rank, " has not prepared version ", reduce.version())));
  }
  if (reduce.decision().reductions_size() >= optimizer_->reduce_rounds()) {
    return finish(absl::InvalidArgumentError(
        absl::StrCat("round ", reduce.decision().reductions_size() + 1, " of sums, the optimizer ",
                     "has ", optimizer_->reduce_rounds())));
  }
  RunRounds(found->second, reduce.decision(),
            [self = shared_from_this(), this, finish](absl::Status status) {
              if (!status.ok() || rounds_->sums.has_value()) return finish(std::move(status));
              RunStepBlocks([self, this, finish] {
                auto sums = optimizer_->FinishRound();
                if (sums.ok()) rounds_->sums = *std::move(sums);
                finish(sums.status());
              });
            });
}

void ShardHost::RunRounds(const PreparedChange& change, const v1::Decision& decision,
                          std::function<void(absl::Status)> done) {
  const int asked = decision.reductions_size();
  if (rounds_.has_value() &&
      (!SameBallot(rounds_->ballot, change.answer.ballot()) || rounds_->taken > asked)) {
    AbandonRounds();
  }
  absl::Status begun;
  if (!rounds_.has_value()) begun = BeginRounds(change, decision);
  if (!begun.ok()) return done(std::move(begun));
  NextRound(decision, std::move(done));
}

absl::Status ShardHost::BeginRounds(const PreparedChange& change, const v1::Decision& decision) {
  StepFacts facts;
  for (const v1::OptionSetting& setting : change.request->step().set_options()) {
    if (!facts.groups.has_value()) facts.groups = optimizer_->groups();
    SHARDSTEP_ASSIGN_OR_RETURN(const OptionValue value,
                               OptionValueFromProto(setting.option().value()));
    if (setting.group() >= facts.groups->size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "param_groups[", setting.group(), "]: expected an index below ", facts.groups->size()));
    }
    (*facts.groups)[setting.group()].options.Set(setting.option().name(), value);
  }
  for (const int dtype : change.answer.group_dtypes()) {
    facts.group_dtypes.push_back(static_cast<DType>(dtype));
  }
  std::optional<double> coefficient;
  if (decision.has_coefficient()) coefficient = decision.coefficient();
  SHARDSTEP_RETURN_IF_ERROR(
      optimizer_->BeginStep(change.step->gradients(), coefficient, change.step->rows(), facts));
  Rounds rounds;
  rounds.ballot = change.answer.ballot();
  rounds_ = std::move(rounds);
  return absl::OkStatus();
}

void ShardHost::NextRound(const v1::Decision& decision, std::function<void(absl::Status)> done) {
  if (rounds_->taken == decision.reductions_size()) return done(absl::OkStatus());
  auto take = [this, decision]() -> absl::Status {
    if (!rounds_->sums.has_value()) {
      SHARDSTEP_ASSIGN_OR_RETURN(rounds_->sums, optimizer_->FinishRound());
    }
    SHARDSTEP_ASSIGN_OR_RETURN(
        const std::vector<ShardSums> totals,
        TotalsFor(*layout_, *rounds_->sums, decision.reductions(rounds_->taken)));
    SHARDSTEP_RETURN_IF_ERROR(optimizer_->BeginRound(totals));
    rounds_->sums.reset();
    ++rounds_->taken;
    return absl::OkStatus();
  };
  auto go_on = [self = shared_from_this(), this, decision, take = std::move(take),
                done = std::move(done)] {
    absl::Status status = take();
    if (!status.ok()) return done(std::move(status));
    NextRound(decision, done);
  };
  if (rounds_->sums.has_value()) return go_on();
  RunStepBlocks(std::move(go_on));
}

void ShardHost::RunStepBlocks(std::function<void()> done) {
  RunBlocks(
      layout_->local_bytes, optimizer_->num_blocks(),
      [this](size_t block) { optimizer_->RunBlock(block); }, std::move(done));
}

void ShardHost::AbandonRounds() {
  if (!rounds_.has_value()) return;
  optimizer_->AbandonStep();
  rounds_.reset();
}

}  // namespace shardstep
