// LeaseWatch: judges whom a simulated server calls lost. A trainer rank is lost when nobody was
// heard of it for a whole lease, by the server's own steady clock.
#ifndef SHARDSTEP_TESTS_SIMULATION_LEASE_WATCH_H_
#define SHARDSTEP_TESTS_SIMULATION_LEASE_WATCH_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/server/clock.h"
#include "shardstep/server/reply.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

// Of one server. Both pointers must outlive it, and it the replies that it gave out.
class LeaseWatch {
 public:
  LeaseWatch(Simulation* simulation, const Clock* clock, absl::Duration lease)
      : simulation_(simulation), clock_(clock), lease_(lease) {}

  // The server starts: every lease with it.
  void Begin();
  // For a call that the server serves from now on: `reply`, and what it says judged. A trainer that
  // is called lost too early fails the simulation.
  Reply<std::string> Watch(Method method, const std::string& request, Reply<std::string> reply);

 private:
  void OnAnswer(Method method, const std::string& request, absl::Time served,
                const absl::StatusOr<std::string>& answer);

  Simulation* const simulation_;
  const Clock* const clock_;
  const absl::Duration lease_;
  absl::Time began_;
  std::map<uint64_t, int> ranks_;       // by session
  std::map<int, absl::Time> heard_of_;  // by trainer rank, since it began
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_LEASE_WATCH_H_
