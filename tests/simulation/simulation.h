// Simulation: virtual time and the queue of everything that happens in it, on one thread. One seed
// is one run.
//
// Whatever happens is an event of a Process, a server or a trainer, which may die, so that its
// events never come, or be held up, so that they come later. Events of the same time come in the
// order in which they were asked for. Every event goes into the trace, whose hash tells two runs
// apart.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIMULATION_H_
#define SHARDSTEP_TESTS_SIMULATION_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shardstep/server/chain_hash.h"
#include "shardstep/tests/simulation/probes.h"
#include "shardstep/tests/simulation/random.h"

namespace shardstep {

// Must outlive the simulation's use of it.
class Process {
 public:
  explicit Process(std::string name) : name_(std::move(name)) {}
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  const std::string& name() const { return name_; }
  bool alive() const { return alive_; }
  // Counts its starts: what belongs to an earlier life is of a dead process.
  uint64_t life() const { return life_; }
  bool lives(uint64_t life) const { return alive_ && life_ == life; }
  // Until when it was held up last.
  absl::Time held_until() const { return held_until_; }

 private:
  friend class Simulation;
  const std::string name_;
  bool alive_ = false;
  uint64_t life_ = 0;
  absl::Time held_until_ = absl::InfinitePast();
};

class Simulation {
 public:
  Simulation(uint64_t seed, bool print) : seed_(seed), print_(print), random_(seed) {}

  uint64_t seed() const { return seed_; }
  Random& random() { return random_; }
  Probes& probes() { return probes_; }
  // For the code that runs: where its process was held up in the middle of it, behind that.
  absl::Time now() const;

  // A new life begins.
  void Start(Process* process);
  // It ends. Code of it that is running runs on in vain: nobody hears of it. Its events are dropped
  // by Forget, to be called when none of its code is running.
  void Kill(Process* process);
  void Forget(Process* process);
  // Stops it for a while: its events wait, time goes on.
  void HoldUp(Process* process, absl::Duration duration);

  // Calls `run` after `delay`. `owner`: whose event it is; null: the simulation's own.
  void After(absl::Duration delay, Process* owner, const char* what, std::function<void()> run);
  // Lets happen what happens until `end`, or until `done` holds between two events; returns whether
  // it does. Returns at once after a failure.
  bool RunUntil(
      absl::Time end, const std::function<bool()>& done = [] { return false; });

  // Whose event is running; null: the simulation's own.
  Process* current() const { return current_; }

  // Adds to the trace.
  void Trace(absl::string_view what);
  // Whether somebody reads it.
  bool printing() const { return print_; }
  uint64_t trace_hash() const { return trace_hash_; }
  uint64_t events() const { return handled_; }

  // The run has shown a mistake of this kind ("lost", "duplicated", ...).
  void Fail(absl::string_view kind, absl::string_view what);
  const std::vector<std::string>& failures() const { return failures_; }

 private:
  struct Event {
    Process* owner = nullptr;
    uint64_t life = 0;
    const char* what = "";
    std::function<void()> run;
  };
  using Key = std::pair<absl::Time, uint64_t>;

  const uint64_t seed_;
  const bool print_;
  Random random_;
  Probes probes_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  uint64_t last_number_ = 0;
  uint64_t handled_ = 0;
  std::map<Key, Event> events_;
  Process* current_ = nullptr;
  uint64_t trace_hash_ = kEmptyChain;
  std::vector<std::string> failures_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIMULATION_H_
