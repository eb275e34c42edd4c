#include "shardstep/server/committed_calls.h"

#include "shardstep/server/faults.h"

namespace shardstep {

v1::StepReply::Committed CommittedReply(uint64_t version, uint64_t lineage,
                                        const v1::Decision& decision, uint64_t durable_version) {
  v1::StepReply::Committed committed;
  committed.set_version(version);
  committed.set_lineage(lineage);
  committed.set_durable_version(durable_version);
  committed.set_grad_norm(decision.grad_norm());
  committed.set_skipped(decision.outcome() == v1::Decision::SKIP);
  return committed;
}

void CommittedCalls::Note(const v1::Contribution& contribution,
                          const v1::StepReply::Committed& reply) {
  const uint64_t session = contribution.pushes().session();
  LastCommit& last = last_[contribution.trainer_rank()];
  if (last.session != session) recorded_.erase(last.session);
  last = {session, contribution.call(), reply.version(), contribution.trainer_state()};
  auto& replies = recorded_[session];
  replies[contribution.call()] = {contribution.call_fingerprint(), reply};
  while (replies.size() > kMaxRecorded) replies.erase(replies.begin());
}

const CommittedCalls::Recorded* CommittedCalls::Find(uint64_t session, uint64_t call) const {
  if (SHARDSTEP_BUG("reply_of_another_session")) {
    for (const auto& [other, replies] : recorded_) {
      if (other != session && replies.count(call) > 0) return &replies.at(call);
    }
  }
  const auto replies = recorded_.find(session);
  if (replies == recorded_.end()) return nullptr;
  const auto found = replies->second.find(call);
  return found == replies->second.end() ? nullptr : &found->second;
}

void CommittedCalls::Forget(uint64_t session, uint64_t first_live_call) {
  const auto replies = recorded_.find(session);
  if (replies == recorded_.end()) return;
  replies->second.erase(replies->second.begin(), replies->second.lower_bound(first_live_call));
  if (replies->second.empty()) recorded_.erase(replies);
}

std::vector<v1::TrainerState> CommittedCalls::TrainerStates() const {
  std::vector<v1::TrainerState> trainers;
  for (const auto& [rank, last] : last_) {
    if (last.version == 0 && last.trainer_state.empty()) continue;
    v1::TrainerState& trainer = trainers.emplace_back();
    trainer.set_trainer_rank(rank);
    trainer.set_session(last.session);
    trainer.set_last_call(last.call);
    trainer.set_last_version(last.version);
    trainer.set_state(last.trainer_state);
  }
  return trainers;
}

void CommittedCalls::LoadTrainerStates(const std::vector<v1::TrainerState>& trainers) {
  for (auto& [rank, last] : last_) last.trainer_state.clear();
  for (const v1::TrainerState& trainer : trainers) {
    last_[trainer.trainer_rank()].trainer_state = trainer.state();
  }
}

void CommittedCalls::RestoreLast(const std::vector<v1::TrainerState>& trainers) {
  last_.clear();
  for (const v1::TrainerState& trainer : trainers) {
    last_[trainer.trainer_rank()] = {trainer.session(), trainer.last_call(), trainer.last_version(),
                                     trainer.state()};
  }
}

void CommittedCalls::AddTo(v1::CoordinatorMemory* memory) const {
  for (v1::TrainerState& trainer : TrainerStates()) *memory->add_trainers() = std::move(trainer);
  for (const auto& [session, replies] : recorded_) {
    for (const auto& [call, recorded] : replies) {
      v1::CoordinatorMemory::Reply* reply = memory->add_replies();
      reply->set_session(session);
      reply->set_call(call);
      reply->set_fingerprint(recorded.fingerprint);
      *reply->mutable_committed() = recorded.reply;
    }
  }
}

CommittedCalls CommittedCalls::Of(const v1::CoordinatorMemory& memory) {
  CommittedCalls calls;
  calls.RestoreLast({memory.trainers().begin(), memory.trainers().end()});
  for (const v1::CoordinatorMemory::Reply& reply : memory.replies()) {
    calls.recorded_[reply.session()][reply.call()] = {reply.fingerprint(), reply.committed()};
  }
  return calls;
}

}  // namespace shardstep
