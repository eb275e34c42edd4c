// SimNetwork: what lies between simulated servers and trainers: calls, which may be late, lost,
// repeated or overtake one another, and streams (sim_stream.h). Everything travels serialized.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_NETWORK_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_NETWORK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/retry.h"
#include "shardstep/server/caller.h"
#include "shardstep/server/reply.h"
#include "shardstep/tests/simulation/sim_stream.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

enum class Method {
  kOpenSession,
  kRenewSession,
  kPropose,
  kDescribe,
  kStep,
  kStepStatus,
  kOpenSnapshot,
  kCloseSnapshot,
  kCheckpoint,
};
enum class StreamKind { kPeer, kPush, kWrite, kRead };

using internal::IsTransient;

// A server, as the network sees it.
class SimService {
 public:
  virtual ~SimService() = default;
  virtual Process* process() = 0;
  // `remaining`: of the caller's time.
  virtual void Serve(Method method, const std::string& request, absl::Duration remaining,
                     std::function<bool()> gone, Reply<std::string> reply) = 0;
  // What it does with a stream that begins.
  virtual SimStream::End Accept(StreamKind kind, std::shared_ptr<SimStream> stream) = 0;
};

// All chances are of one message.
struct NetworkFaults {
  double lost = 0;                               // a call or its reply
  double repeated = 0;                           // a call is delivered twice
  double late = 0;                               // by up to `latest`
  absl::Duration usual = absl::Milliseconds(2);  // at most
  absl::Duration latest = absl::Milliseconds(800);
  double breaks = 0;  // a stream
};

// Must outlive all that uses it. Not thread-safe.
class SimNetwork {
 public:
  explicit SimNetwork(Simulation* simulation) : simulation_(simulation) {}
  ~SimNetwork();
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  void SetFaults(const NetworkFaults& faults) { faults_ = faults; }
  // Nothing from `from` reaches `to` for a while.
  void Clog(const Process* from, const Process* to, absl::Duration duration);
  // Every stream of it breaks.
  void Cut(const Process* process);
  // No faults any more, and no clogs.
  void Heal();

  // For one message, from now on.
  absl::Duration Delay(const Process* from, const Process* to);
  bool Repeats() { return simulation_->random().Chance(faults_.repeated); }
  bool Breaks() { return simulation_->random().Chance(faults_.breaks); }

  // The reply comes once: the server's first, or UNAVAILABLE, or DEADLINE_EXCEEDED after `timeout`.
  // A server that lives on and does not answer in time has failed the run.
  template <typename Request, typename Response>
  void Call(Process* caller, SimService* server, Method method, const Request& request,
            absl::Duration timeout, Reply<Response> reply) {
    CallBytes(caller, server, method, request.SerializeAsString(), timeout,
              [reply = std::move(reply)](absl::StatusOr<std::string> bytes) {
                if (!bytes.ok()) return reply(bytes.status());
                Response response;
                if (!response.ParseFromString(*bytes)) {
                  return reply(absl::InternalError("the reply does not parse"));
                }
                reply(std::move(response));
              });
  }
  // `late`: its messages arrive that much later.
  std::shared_ptr<SimStream> Open(Process* caller, SimService* server, StreamKind kind,
                                  SimStream::End end, absl::Duration late = absl::ZeroDuration());

  // Its streams break and its callers hear of it, some of them.
  void OnDeath(const Process* process);
  // And what is left of it is dropped, when none of its code is running.
  void Forget(const Process* process);

 private:
  struct OpenCall {
    Process* caller = nullptr;
    const Process* callee = nullptr;
    Reply<std::string> reply;  // null: it came
    std::string answer;        // that came
  };
  using OpenCallPtr = std::shared_ptr<OpenCall>;

  void CallBytes(Process* caller, SimService* server, Method method, std::string request,
                 absl::Duration timeout, Reply<std::string> reply);
  void Deliver(const OpenCallPtr& call, SimService* server, Method method,
               const std::string& request, absl::Time deadline);
  void Answer(const OpenCallPtr& call, const absl::StatusOr<std::string>& answer);

  Simulation* const simulation_;
  NetworkFaults faults_;
  std::map<std::pair<const Process*, const Process*>, absl::Time> clogs_;
  std::vector<std::weak_ptr<SimStream>> streams_;
  std::vector<std::weak_ptr<OpenCall>> calls_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_NETWORK_H_
