// SimPushLane: the pushes of one simulated trainer to one server, sent until they are acknowledged
// (what client/push_lane.h is in the SDK).
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_PUSH_LANE_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_PUSH_LANE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/simulation.h"
#include "shardstep/v1/frame.pb.h"

namespace shardstep {

// A push to one server, as it goes over the wire.
struct OutgoingPush {
  v1::Begin begin;
  std::vector<std::string> frames;  // encoded
  v1::End end;
};

// Must outlive its trainer's process.
class SimPushLane {
 public:
  struct Outside {
    Simulation* simulation = nullptr;
    SimNetwork* network = nullptr;
    Process* process = nullptr;  // the trainer's
    std::function<SimService*()> find;
    // A push was acknowledged.
    std::function<void()> acknowledged;
    // The server refuses a push for good.
    std::function<void(const absl::Status&)> refused;
  };
  explicit SimPushLane(Outside outside) : outside_(std::move(outside)) {}

  void Add(OutgoingPush push);
  // The server lacks these.
  void Repeat(uint64_t first, uint64_t last);
  // Those below are dead.
  void Forget(uint64_t first_live);
  bool AllAcknowledged() const;

 private:
  enum class State { kUnsent, kSent, kAcknowledged };
  struct Held {
    OutgoingPush push;
    State state = State::kUnsent;
    int attempts = 0;
  };

  void Pump();
  void PumpLater();
  static void Send(const std::shared_ptr<SimStream>& stream, const OutgoingPush& push);
  // A copy of it arrives at some later time, on a stream of its own.
  void SendStray(const OutgoingPush& push);
  void OnAck(const std::string& bytes);
  void OnClosed();

  const Outside outside_;
  std::shared_ptr<SimStream> stream_;
  std::map<uint64_t, Held> held_;  // by sequence
  bool pump_due_ = false;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_PUSH_LANE_H_
