// SimReader: somebody who reads a whole version through a snapshot, from all servers, and has the
// ledger judge it.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_READER_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_READER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "shardstep/server/layout.h"
#include "shardstep/tests/simulation/ledger.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/simulation.h"
#include "shardstep/tests/simulation/workload.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

// Must outlive the events of its process.
class SimReader {
 public:
  struct Outside {
    Simulation* simulation = nullptr;
    SimNetwork* network = nullptr;
    const Workload* workload = nullptr;
    std::function<SimService*(int server)> find;
  };
  explicit SimReader(Outside outside);

  // Reads as soon as it can, from now on, whatever fails. `read` is called when it has; not at all
  // where Stop was called before. One at a time.
  void Read(Ledger* ledger, std::function<void(const Ledger::Read&)> read);
  void Stop();
  bool reading() const { return ledger_ != nullptr; }

 private:
  void Again();
  void OpenSnapshot();
  void Describe();
  void ReadServer(int server);
  // A frame of the stream of `server`; whether it was the last.
  absl::StatusOr<bool> Take(int server, const std::string& bytes);
  void Finish();

  const Outside outside_;
  Process process_;
  Ledger* ledger_ = nullptr;  // null: nothing to do
  std::function<void(const Ledger::Read&)> read_done_;

  uint64_t attempt_ = 0;
  Ledger::Floor floor_;
  v1::Snapshot snapshot_;
  v1::Description description_;
  Ledger::Read read_;
  FrameDigest digest_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_READER_H_
