// Several LocalOptimizers in one process that step together: their shards cut in any way, their
// parts of sums added up as a fleet does. For tests: what fails is reported to GoogleTest.
#ifndef SHARDSTEP_TESTS_GOLDEN_COUPLED_FLEET_H_
#define SHARDSTEP_TESTS_GOLDEN_COUPLED_FLEET_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "shardstep/optim/blocks.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/options/coupling.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/optim/shard_sums.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// The regions of a parameter of these sizes; they cover it once.
using RegionCut = std::function<std::vector<Region>(const Shape& sizes)>;

struct CoupledSetup {
  std::string name;
  RegionCut cut;
  int servers = 1;  // shards are dealt round
  int threads = 1;
  bool held = false;  // a snapshot of every version is held while the next one is made
  int64_t block_elements = kBlockElements;
  // Where there is one: after half of the steps everything moves to `later_servers`, cut so.
  RegionCut later_cut = nullptr;
  int later_servers = 1;
};

std::vector<Region> WholeCut(const Shape& sizes);

// The setups that an optimizer allows; the first one is whole, on one server.
std::vector<CoupledSetup> CoupledSetups(Coupling::Cut cut);

struct FleetParameter {
  std::string name;
  at::Tensor value;
};

class CoupledFleet {
 public:
  CoupledFleet(std::string kind, CoupledSetup setup) : kind_(kind), setup_(setup) {}

  void Create(const std::vector<ParamGroup>& groups, const std::vector<FleetParameter>& values);
  // Moves everything to the setup's later servers, as a load of a state_dict does.
  void Reshard();
  void SetOption(size_t group, const std::string& name, const OptionValue& value);
  // By parameter, whole; undefined: none.
  void Step(const std::vector<at::Tensor>& gradients);

  // Whole tensors by "<parameter>/<value or state>". What several shards keep must be equal.
  std::map<std::string, at::Tensor> Record() const;

 private:
  struct Server {
    LocalOptimizer optimizer;
    std::vector<std::pair<size_t, size_t>> shards;  // parameter, index of its region
  };

  void MakeServers(const std::vector<ParamGroup>& groups, const std::vector<at::Tensor>& values,
                   int count);
  std::vector<DType> GroupDTypes(const std::vector<at::Tensor>& gradients) const;
  void RunBlocks(LocalOptimizer& optimizer) const;
  // Adds up the servers' parts in the order of regions; each server gets its own back as totals.
  void AddUp(std::vector<std::vector<ShardSums>>& parts) const;

  const std::string kind_;
  const CoupledSetup setup_;
  RegionCut cut_;
  std::vector<std::string> names_;
  std::vector<Shape> sizes_;
  std::vector<DType> dtypes_;
  std::vector<Server> servers_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_GOLDEN_COUPLED_FLEET_H_
