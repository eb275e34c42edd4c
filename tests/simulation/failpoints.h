// Failpoints: what happens in a simulated run at the places of failpoint_list.h.
#ifndef SHARDSTEP_TESTS_SIMULATION_FAILPOINTS_H_
#define SHARDSTEP_TESTS_SIMULATION_FAILPOINTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "shardstep/tests/simulation/failpoint_list.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

enum class FaultKind { kCrash, kError, kDelay };
const char* NameOf(FaultKind kind);

// How often what happened: by point, server and kind.
using FaultCounts = std::map<std::tuple<std::string, int, FaultKind>, uint64_t>;

// While it lives, it alone says what happens at failpoints. A run that comes by one that is not in
// the list has failed.
class Failpoints {
 public:
  struct Outside {
    Simulation* simulation = nullptr;
    // The server rank whose process that is; -1: none.
    std::function<int(const Process*)> rank_of;
    std::function<void(const Process*)> crash;
  };
  explicit Failpoints(Outside outside);
  ~Failpoints();
  Failpoints(const Failpoints&) = delete;
  Failpoints& operator=(const Failpoints&) = delete;

  // From now on this happens every now and then at any point.
  void SetChance(double chance) { chance_ = chance; }
  // This happens at `point` on `server`, after it was passed `skip` times more. One at a time.
  void Arm(const std::string& point, int server, FaultKind kind, int skip);
  bool armed() const { return !armed_point_.empty(); }
  void Disarm() { armed_point_.clear(); }

  const FaultCounts& fired() const { return fired_; }
  // By point and server.
  const std::map<std::pair<std::string, int>, uint64_t>& passed() const { return passed_; }

 private:
  absl::Status Pass(const char* point, bool fallible);
  absl::Status Fire(const std::string& point, Process* process, int server, FaultKind kind);

  const Outside outside_;
  double chance_ = 0;
  std::string armed_point_;
  int armed_server_ = 0;
  FaultKind armed_kind_ = FaultKind::kCrash;
  int armed_skip_ = 0;
  FaultCounts fired_;
  std::map<std::pair<std::string, int>, uint64_t> passed_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_FAILPOINTS_H_
