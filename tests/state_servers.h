// StateServers: servers reduced to what moves state between shardings, on one thread: no optimizer,
// no sockets, no coordinator. State comes from a client's load, from a checkpoint or from a base
// file, and goes into a client's state_dict, a checkpoint or a base file, each through the code
// that real fleets run.
#ifndef SHARDSTEP_TESTS_STATE_SERVERS_H_
#define SHARDSTEP_TESTS_STATE_SERVERS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/server/held_version.h"
#include "shardstep/server/staging.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {

// Every parameter has every state of the description. Confined to one thread.
class StateServers {
 public:
  // Aborts if the description is not valid. `files` must outlive it.
  StateServers(const OptimizerDescription& description, int servers, FileSystem* files);

  const internal::OptimizerIndex& index() const { return *index_; }
  const HeldVersion& held(int server) const { return *held_[server]; }

  absl::Status Load(const StateDict& dict);
  absl::StatusOr<StateDict> Read(const StateDictOptions& options = {}) const;
  // Below "/checkpoints".
  absl::Status Save(const std::string& checkpoint_id) const;
  absl::Status Restore(const std::string& checkpoint_id);
  // Every server's state goes into a base file, and what is read of that takes its place.
  absl::Status PassThroughBases();

 private:
  // Stages everything on `server`, as `fill` brings it, and holds it.
  absl::Status Stage(int server,
                     const std::function<absl::Status(const Staging&, Assembly*)>& fill);

  const OptimizerDescription description_;
  const int servers_;
  FileSystem* const files_;
  const std::shared_ptr<const internal::OptimizerIndex> index_;
  std::vector<std::shared_ptr<HeldVersion>> held_;  // by server
  mutable MemoryBudget memory_{1 << 24};
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_STATE_SERVERS_H_
