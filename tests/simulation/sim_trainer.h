// SimTrainer: a trainer of a simulated run, which follows PROTOCOL's rules for clients as the SDK
// does: opens a session, creates or attaches, and then steps: pushes a gradient to all servers,
// calls Step until it has an outcome, pushes again what is missing, goes on where it is told to
// after the history was replaced. It may die at any point; another one of its trainer rank takes
// over.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_TRAINER_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_TRAINER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/server/layout.h"
#include "shardstep/tests/simulation/ledger.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/sim_push_lane.h"
#include "shardstep/tests/simulation/simulation.h"
#include "shardstep/tests/simulation/workload.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep {

// Must outlive the events of its process.
class SimTrainer {
 public:
  struct Outside {
    Simulation* simulation = nullptr;
    SimNetwork* network = nullptr;
    Ledger* ledger = nullptr;
    const Workload* workload = nullptr;
    absl::Duration lease;
    std::function<SimService*(int server)> find;
  };
  // The `instance`th trainer of its rank.
  SimTrainer(Outside outside, int rank, int instance);

  void Start();
  void Die();
  // It rests once so many steps of its rank are committed.
  void RestAt(uint64_t steps) { rests_at_ = steps; }
  bool resting() const { return resting_; }
  // Of its trainer rank, committed, as it knows.
  uint64_t steps() const { return steps_; }

  int rank() const { return rank_; }
  Process* process() { return &process_; }
  bool alive() const { return process_.alive(); }
  // Steps of its own that were acknowledged.
  uint64_t acknowledged() const { return acknowledged_; }

 private:
  // Calls until there is an answer that is no transient error.
  template <typename Request, typename Response>
  void Call(Method method, const Request& request, std::function<void(const Response&)> answered,
            std::function<void(const absl::Status&)> refused);
  absl::Duration CallTimeout();
  void Later(std::function<void()> task);
  v1::CallHeader Header() const;
  // An error that its caller has no answer to.
  void OnError(const absl::Status& status);

  // sim_trainer_start.cc
  void OpenSession();
  void OnOpened(const v1::OpenSessionReply& reply);
  void Propose(uint64_t staged);
  void OnProposed(const v1::ProposeReply& reply);
  void Stage(const v1::ProposeReply::Staging& staging);
  void Write(const v1::ProposeReply::Staging& staging, int server);
  void Describe(uint64_t staging, std::function<void(const v1::DescribeReply&)> done);
  void OnDescribed(const v1::DescribeReply& reply);
  void Renew();

  // sim_trainer.cc
  void BeginStep();
  void Push(int push, int pushes);
  // A push without gradients, to some of the servers.
  void PushNothing();
  OutgoingPush MakePush() const;
  void Forget();
  void OnPushed();
  void CallStep();
  void AskStatus();
  void OnStep(const absl::StatusOr<v1::StepReply>& reply);
  void OnCommitted(const v1::StepReply::Committed& committed);
  void OnMissing(const v1::ErrorDetail& detail);
  void Follow(const absl::Status& status);

  const Outside outside_;
  const int rank_;
  const std::string instance_;
  Process process_;

  v1::OpenSessionReply session_;
  std::string plan_id_;
  uint64_t lineage_ = 0;
  std::vector<std::shared_ptr<const Layout>> layouts_;  // by server
  std::vector<std::unique_ptr<SimPushLane>> lanes_;     // by server

  bool training_ = false;  // else it still wants to begin
  uint64_t rests_at_ = UINT64_MAX;
  bool resting_ = false;
  uint64_t steps_ = 0;
  uint64_t acknowledged_ = 0;
  uint64_t version_ = 0;
  uint64_t next_call_ = 1;
  uint64_t first_live_push_ = 1;
  uint64_t last_push_ = 0;
  v1::PartialPushes sent_;  // where the live pushes went, by server
  bool partial_ = false;    // and not all of them everywhere
  // The step under way.
  enum class Phase { kResting, kPushing, kCalling };
  Phase phase_ = Phase::kResting;
  int failed_calls_ = 0;
  v1::StepRequest request_;
  std::vector<uint64_t> snapshots_;  // to be closed
};

template <typename Request, typename Response>
void SimTrainer::Call(Method method, const Request& request,
                      std::function<void(const Response&)> answered,
                      std::function<void(const absl::Status&)> refused) {
  outside_.network->Call<Request, Response>(
      &process_, outside_.find(0), method, request, CallTimeout(),
      [=](const absl::StatusOr<Response>& reply) {
        if (reply.ok()) return answered(*reply);
        if (!IsTransient(reply.status())) return refused(reply.status());
        Later([=] { Call(method, request, answered, refused); });
      });
}

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_TRAINER_H_
