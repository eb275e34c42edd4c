#include "shardstep/tests/simulation/probes.h"

namespace shardstep {

const std::vector<std::string>& Probes::Names() {
  static const auto* const names = new std::vector<std::string>{
      "base_with_pending",
      "bits_compared",
      "call_lost",
      "call_repeated",
      "clock_jumped",
      "coordinator_replaced",
      "coordinator_superseded",
      "create_refused",
      "decision_sent_by_successor",
      "hello_of_replaced_coordinator",
      "in_doubt_aborted",
      "in_doubt_committed",
      "log_torn",
      "missing_pushed_again",
      "participant_lost",
      "prepare_missed_pushes",
      "prepare_refused_on_full_disk",
      "push_sent_again",
      "push_strayed",
      "recorded_reply_given",
      "replaced_server_answered",
      "reply_lost",
      "reply_without_snapshot",
      "resumed_behind_unacknowledged_step",
      "rolled_back",
      "server_ended_itself",
      "step_status_asked",
      "step_status_committed",
      "step_with_partial_pushes",
      "trainer_fenced",
      "trainer_replaced",
      "welcome_with_decided",
      "welcome_with_in_doubt",
      "welcome_with_shards_lost",
  };
  return *names;
}

void Probes::Hit(absl::string_view name, uint64_t times) { counts_[std::string(name)] += times; }

void Probes::Add(const Probes& other) {
  for (const auto& [name, count] : other.counts_) counts_[name] += count;
}

uint64_t Probes::count(const std::string& name) const {
  const auto found = counts_.find(name);
  return found == counts_.end() ? 0 : found->second;
}

std::vector<std::string> Probes::Missed() const {
  std::vector<std::string> missed;
  for (const std::string& name : Names()) {
    if (count(name) == 0) missed.push_back(name);
  }
  return missed;
}

}  // namespace shardstep
