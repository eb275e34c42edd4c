// TestFleet: whole servers (nodes) in one process and one thread, joined without sockets, on a
// clock that the test moves. For tests of the core's state machines.
#ifndef SHARDSTEP_SERVER_TEST_FLEET_H_
#define SHARDSTEP_SERVER_TEST_FLEET_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/server/checkpoint_store.h"
#include "shardstep/server/node.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {

// The answer of an asynchronous call, once it is there.
template <typename T>
struct Answer {
  std::optional<absl::StatusOr<T>> value;
  Reply<T> reply() {
    return [this](absl::StatusOr<T> result) { value = std::move(result); };
  }
  bool there() const { return value.has_value(); }
  absl::Status status() const {
    return value.has_value() ? value->status() : absl::UnknownError("no answer yet");
  }
  const T& operator*() const { return **value; }
  const T* operator->() const { return &**value; }
};

using Values = std::map<std::string, std::vector<float>>;
// One number for all elements of a tensor, or the scalar: by parameter and state name ("" = the
// parameter's value).
using Fills = std::map<std::pair<std::string, std::string>, float>;

class TestFleet {
 public:
  // Each server's data directory is a fresh one below `directory`, where checkpoints are too.
  TestFleet(int servers, std::string directory, NodeOptions options = DefaultOptions());
  ~TestFleet();

  static NodeOptions DefaultOptions();

  FakeClock& clock() { return clock_; }
  Node& node(int server) { return *nodes_[server]->node; }
  Coordinator& coordinator(const std::string& optimizer = "m");
  ShardHost& host(int server, const std::string& optimizer = "m");

  // The process dies and comes back on the same data directory.
  void Restart(int server);
  // The two halves of it. What is asked of a server in between does not arrive.
  void Stop(int server);
  void Start(int server);
  // Why a server said that it must end.
  const absl::Status& fatal() const { return fatal_; }
  // From its next start on the server has a folder of checkpoints of its own.
  void SeparateRoot(int server) { separate_roots_.insert(server); }
  // Messages between the coordinator and `server` stay on their way, or arrive after all.
  void Cut(int server);
  void Heal(int server);
  // How often messages have reached the server, as many together as were sent so.
  int batches(int server) const { return batches_[server]; }
  // Lets time pass in steps of a tick.
  void Advance(absl::Duration by);

  // A definition of float32 parameters, each of the given size and cut over all servers.
  static OptimizerDefinition Definition(const std::vector<std::pair<std::string, int64_t>>& sizes,
                                        OptionMap options, Mode mode, int servers);

  // Calls that must succeed, with what comes back.
  uint64_t OpenSession(int trainer_rank, const std::string& instance);
  // Creates with zeros, as `session`.
  absl::Status Create(const OptimizerDefinition& definition, uint64_t session);
  // `lineage` 0: whatever stands.
  absl::Status Delete(uint64_t lineage = 0);
  // Proposes a change until it is done, filling what is to be staged.
  absl::StatusOr<v1::ProposeReply::Done> Propose(v1::ProposeRequest request, const Fills& fills);
  // Fills a staging that was handed out, on servers 0 to `servers` - 1 (-1: all).
  absl::Status Stage(const v1::ProposeReply::Staging& staging, uint64_t session, const Fills& fills,
                     int servers = -1);
  absl::StatusOr<v1::CheckpointReply::Done> Checkpoint(const std::string& id,
                                                       const std::string& request_id);
  absl::StatusOr<v1::ProposeReply::Done> Restore(const std::string& id,
                                                 const std::string& request_id);

  // Pushes one gradient value for all elements of each named parameter, to all servers.
  absl::Status Push(uint64_t session, uint64_t sequence, const std::map<std::string, float>& values,
                    double weight = 1, uint64_t computed_on = 0, int only_server = -1,
                    uint64_t first_live_push = 0);
  // A Step of pushes [first, last]; the answer is there once the fleet is done with it.
  std::unique_ptr<Answer<v1::StepReply>> Step(uint64_t session, uint64_t sequence, uint64_t first,
                                              uint64_t last, const v1::StepRequest& more = {},
                                              absl::Duration timeout = absl::Minutes(1));
  // The values of a snapshot, and of one opened now.
  absl::StatusOr<Values> Read(uint64_t snapshot, uint64_t* version = nullptr);
  absl::StatusOr<Values> ReadNow(uint64_t* version = nullptr);
  // The same with every state tensor, under "name/state", and scalars as one number.
  absl::StatusOr<Values> ReadEverything(v1::Description* description = nullptr);

  const std::shared_ptr<const Layout>& layout(int server) const { return layouts_[server]; }

 private:
  struct Server {
    std::unique_ptr<Catalog> catalog;
    std::unique_ptr<CheckpointStore> checkpoints;
    std::unique_ptr<Node> node;
  };
  struct Peering {
    std::weak_ptr<Coordinator> coordinator;
    std::string optimizer;
  };

  void StartServer(int server);
  void Connect(int server, const Peering& peering);
  // Sends frames of the given per-shard values through the codec into `assembly`.
  absl::Status Fill(Assembly* assembly, const Layout& layout, const Fills& fills, v1::End* end);

  const std::string directory_;
  const NodeOptions options_;
  FakeClock clock_;
  InlineExecutor executor_;
  std::vector<std::unique_ptr<Server>> nodes_;
  std::vector<bool> cut_;
  std::vector<int> batches_;
  std::set<int> separate_roots_;
  absl::Status fatal_;
  std::vector<std::shared_ptr<void>> kept_;
  std::vector<Peering> peerings_;
  std::vector<std::shared_ptr<const Layout>> layouts_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_TEST_FLEET_H_
