// SimStream: one connection of a simulated network: messages in both directions, each in order. It
// may break at any moment; what was on its way is then lost, or arrives behind the break.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_STREAM_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_STREAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

class SimNetwork;

// Made by SimNetwork. Held by its two sides and by the messages on their way.
class SimStream : public std::enable_shared_from_this<SimStream> {
 public:
  enum Side { kCaller = 0, kCallee = 1 };
  // What one side does with what arrives. Either may be null.
  struct End {
    std::function<void(const std::string& message)> message;
    // The other side, or the network, ended it; nothing comes behind this.
    std::function<void(const absl::Status& why)> closed;
  };

  SimStream(Simulation* simulation, SimNetwork* network, Process* caller, Process* callee);

  void SetEnd(Side side, End end);
  // Reaches the callee before any message, `late` or more after now: `accept` runs there.
  void Begin(absl::Duration late, std::function<void()> accept);
  // From `from` to the other side. Nothing happens if the sender is dead or the stream is broken.
  void Send(Side from, std::string message);
  // Either side, or the network, ends it; both hear of it.
  void Break(absl::Status why = absl::UnavailableError("connection lost"));
  bool broken() const { return broken_; }
  bool touches(const Process* process) const {
    return process == sides_[0].process || process == sides_[1].process;
  }
  // A side's process is dead, and none of its code is running.
  void DropEnd(const Process* process);
  void DropEnds() { sides_[0].end = sides_[1].end = {}; }

 private:
  struct Party {
    Process* process = nullptr;
    uint64_t life = 0;
    End end;
    // When the last message to it arrives.
    absl::Time last_arrival = absl::InfinitePast();
  };

  Simulation* const simulation_;
  SimNetwork* const network_;
  Party sides_[2];
  bool broken_ = false;
  // What was on its way to the callee when it broke still arrives.
  bool lingers_ = false;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_STREAM_H_
