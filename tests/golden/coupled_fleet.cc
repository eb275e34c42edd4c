#include "shardstep/tests/golden/coupled_fleet.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <tuple>
#include <utility>

#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

at::Tensor Narrowed(at::Tensor tensor, const Region& region) {
  for (size_t i = 0; i < region.sizes.size(); ++i) {
    const int64_t begin = std::min(region.offsets[i], tensor.size(i));
    tensor = tensor.narrow(i, begin, region.sizes[i]);
  }
  return tensor;
}

at::Tensor Copied(const at::Tensor& tensor, const Region& region) {
  return Narrowed(tensor, region).contiguous().clone();
}

// Cuts dimension `dim` (counted from the last one) of every region at these places.
std::vector<Region> CutAt(const std::vector<Region>& regions, size_t dim_from_last,
                          const std::vector<int64_t>& places) {
  std::vector<Region> cut;
  for (const Region& region : regions) {
    if (region.sizes.size() <= dim_from_last) {
      cut.push_back(region);
      continue;
    }
    const size_t dim = region.sizes.size() - 1 - dim_from_last;
    const int64_t end = region.sizes[dim];
    Region rest = region;
    for (const int64_t place : places) {
      Region part = rest;
      part.sizes[dim] = std::min(place, end) - (rest.offsets[dim] - region.offsets[dim]);
      rest.offsets[dim] += part.sizes[dim];
      rest.sizes[dim] -= part.sizes[dim];
      cut.push_back(part);
    }
    cut.push_back(rest);
  }
  return cut;
}

RegionCut Cut(const std::vector<int64_t>& rows, const std::vector<int64_t>& columns) {
  return [=](const Shape& sizes) {
    std::vector<Region> regions = WholeCut(sizes);
    // What has one dimension is cut as if that were rows.
    if (!rows.empty()) regions = CutAt(regions, sizes.size() < 2 ? 0 : 1, rows);
    if (!columns.empty() && sizes.size() > 1) regions = CutAt(regions, 0, columns);
    if (sizes.size() > 2) regions = CutAt(regions, 2, {1});
    return regions;
  };
}

std::vector<Region> ElementsCut(const Shape& sizes) {
  std::vector<Region> regions = WholeCut(sizes);
  for (size_t dim = 0; dim < sizes.size(); ++dim) {
    std::vector<int64_t> places;
    for (int64_t i = 1; i < sizes[sizes.size() - 1 - dim]; ++i) places.push_back(i);
    if (!places.empty()) regions = CutAt(regions, dim, places);
  }
  return regions;
}

// Rows are cut elsewhere on the left than on the right.
std::vector<Region> UnevenCut(const Shape& sizes) {
  std::vector<Region> regions;
  for (const Region& side : CutAt(WholeCut(sizes), 0, {sizes.empty() ? 0 : sizes.back() / 3})) {
    const std::vector<int64_t> places =
        regions.empty() ? std::vector<int64_t>{1, 1, 4} : std::vector<int64_t>{3};
    for (const Region& part : CutAt({side}, 1, places)) regions.push_back(part);
  }
  return regions;
}

}  // namespace

std::vector<Region> WholeCut(const Shape& sizes) { return {{Shape(sizes.size(), 0), sizes}}; }

std::vector<CoupledSetup> CoupledSetups(Coupling::Cut cut) {
  CoupledSetup whole{"Whole", WholeCut};
  CoupledSetup held{"WholeHeldInBlocksOnTwoThreads", WholeCut, 2, 2, true, 5};
  if (cut == Coupling::Cut::kNowhere) return {whole, held};
  const RegionCut rows = Cut({1, 3}, {}), many_rows = Cut({1, 2, 3, 4, 5, 6, 7, 8, 300}, {});
  std::vector<CoupledSetup> setups = {
      whole,
      held,
      {"RowsOnTwoServers", rows, 2, 1, true},
      {"MoreServersThanRows", many_rows, 9, 1, false, 64},
      {"RowsThenWhole", rows, 2, 1, false, 7, WholeCut, 1},
      {"WholeThenManyRows", WholeCut, 1, 1, true, 1000, many_rows, 3}};
  if (cut == Coupling::Cut::kBetweenRows) return setups;
  const RegionCut columns = Cut({}, {1, 4}), grid = Cut({2, 3}, {3, 3, 200});
  setups.insert(setups.end(), {{"ColumnsOnTwoThreads", columns, 1, 2, false, 3},
                               {"GridOnThreeServersHeld", grid, 3, 1, true},
                               {"SingleElements", ElementsCut, 2},
                               {"UnevenOnTwoServers", UnevenCut, 2, 2, false, 4},
                               {"RowsThenGrid", rows, 2, 1, false, kBlockElements, grid, 3},
                               {"UnevenThenColumns", UnevenCut, 3, 1, true, 11, columns, 2}});
  return setups;
}

void CoupledFleet::Create(const std::vector<ParamGroup>& groups,
                          const std::vector<FleetParameter>& parameters) {
  std::vector<at::Tensor> values;
  for (const FleetParameter& parameter : parameters) {
    names_.push_back(parameter.name);
    sizes_.push_back(parameter.value.sizes().vec());
    const bool is_float = parameter.value.scalar_type() == at::kFloat;
    dtypes_.push_back(is_float ? DType::kFloat32 : DType::kFloat64);
    values.push_back(parameter.value);
  }
  cut_ = setup_.cut;
  MakeServers(groups, values, setup_.servers);
}

void CoupledFleet::MakeServers(const std::vector<ParamGroup>& groups,
                               const std::vector<at::Tensor>& values, int count) {
  std::vector<std::vector<ShardValue>> shards(count);
  std::vector<std::vector<std::pair<size_t, size_t>>> places(count);
  size_t next = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::vector<Region> regions = cut_(sizes_[i]);
    for (size_t region = 0; region < regions.size(); ++region, ++next) {
      shards[next % count].push_back(
          {i, Copied(values[i], regions[region]), regions[region], sizes_[i]});
      places[next % count].emplace_back(i, region);
    }
  }
  servers_.clear();
  for (int i = 0; i < count; ++i) {
    ASSERT_OK_AND_ASSIGN(
        LocalOptimizer made,
        LocalOptimizer::Create(kind_, groups, names_, std::move(shards[i]), setup_.block_elements));
    servers_.push_back({std::move(made), std::move(places[i])});
  }
}

void CoupledFleet::Reshard() {
  const std::map<std::string, at::Tensor> record = Record();
  const std::vector<ParamGroup> groups = servers_[0].optimizer.groups();
  std::vector<at::Tensor> values;
  for (const std::string& name : names_) values.push_back(record.at(name + "/value"));
  cut_ = setup_.later_cut;
  ASSERT_NO_FATAL_FAILURE(MakeServers(groups, values, setup_.later_servers));
  ASSERT_OK_AND_ASSIGN(const auto optimizer, MakeOptimizer(kind_));
  for (Server& server : servers_) {
    std::vector<std::vector<TensorState>> states(server.shards.size());
    std::vector<std::vector<ScalarState>> scalars(names_.size());
    for (size_t i = 0; i < server.shards.size(); ++i) {
      const auto [parameter, region] = server.shards[i];
      const Region place = cut_(sizes_[parameter])[region];
      scalars[parameter].clear();
      for (const StateSpec& spec : optimizer->AllStates()) {
        const auto found = record.find(names_[parameter] + "/" + spec.name);
        if (found == record.end()) continue;
        if (spec.kind == StateSpec::Kind::kScalar) {
          scalars[parameter].push_back({spec.name, found->second.item().toDouble(), spec.dtype});
        } else {
          const Region part = ExtentRegion(spec.extent, place);
          states[i].push_back({spec.name, Copied(found->second, part)});
        }
      }
    }
    ASSERT_OK(server.optimizer.SetState(std::move(states), std::move(scalars)));
  }
}

void CoupledFleet::SetOption(size_t group, const std::string& name, const OptionValue& value) {
  for (Server& server : servers_) ASSERT_OK(server.optimizer.SetOption(group, name, value));
}

std::vector<DType> CoupledFleet::GroupDTypes(const std::vector<at::Tensor>& gradients) const {
  std::vector<DType> first;
  for (const ParamGroup& group : servers_[0].optimizer.groups()) {
    first.push_back(DType::kInvalid);
    for (const std::string& name : group.params) {
      const size_t index = std::find(names_.begin(), names_.end(), name) - names_.begin();
      if (first.back() == DType::kInvalid && gradients[index].defined()) {
        first.back() = dtypes_[index];
      }
    }
  }
  return first;
}

void CoupledFleet::RunBlocks(LocalOptimizer& optimizer) const {
  const auto run = [&](size_t first) {
    // From the last one: their order does not matter.
    for (size_t i = optimizer.num_blocks(); i-- > 0;) {
      if (i % setup_.threads == first) optimizer.RunBlock(i);
    }
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < setup_.threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
}

void CoupledFleet::AddUp(std::vector<std::vector<ShardSums>>& parts) const {
  // By parameter and sum, then by region: each part and where in all of the sum it lies.
  std::map<std::tuple<size_t, size_t, size_t>, ShardSums*> ordered;
  for (size_t s = 0; s < parts.size(); ++s) {
    for (ShardSums& part : parts[s]) {
      const auto [parameter, region] = servers_[s].shards[part.shard];
      ordered[{parameter, part.sum, region}] = &part;
    }
  }
  std::map<std::pair<size_t, size_t>, std::vector<CompensatedSum>> totals;
  const auto for_each = [&](const auto& function) {
    for (const auto& [key, part] : ordered) {
      const auto& [parameter, sum, region] = key;
      const Region all = WholeCut(ExtentSizes(part->extent, sizes_[parameter]))[0];
      const Region own = ExtentRegion(part->extent, cut_(sizes_[parameter])[region]);
      std::vector<CompensatedSum>& total = totals[{parameter, sum}];
      total.resize(ElementCount(all.sizes));
      ForEachRun(own, own, all, [&, part = part](int64_t a, int64_t b, int64_t length) {
        for (int64_t i = 0; i < length; ++i) function(part->values[a + i], total[b + i]);
      });
    }
  };
  for_each([](const CompensatedSum& own, CompensatedSum& total) { total = Sum(total, own); });
  for_each([](CompensatedSum& own, const CompensatedSum& total) { own = total; });
}

void CoupledFleet::Step(const std::vector<at::Tensor>& gradients) {
  std::vector<LocalState> snapshots;
  std::vector<std::map<std::string, at::Tensor>> copies;
  const auto copies_of = [](const LocalState& state) {
    std::vector<at::Tensor> all;
    for (const LocalState::Shard& shard : state.shards) {
      all.push_back(shard.value.clone());
      for (const TensorState& entry : shard.states) all.push_back(entry.tensor.clone());
    }
    return all;
  };
  std::vector<std::vector<at::Tensor>> before;
  for (Server& server : servers_) {
    if (setup_.held) snapshots.push_back(server.optimizer.state());
    if (setup_.held) before.push_back(copies_of(snapshots.back()));
  }
  StepFacts facts;
  facts.group_dtypes = GroupDTypes(gradients);
  for (Server& server : servers_) {
    std::vector<ShardGradient> own;
    for (const auto& [parameter, region] : server.shards) {
      const bool defined = gradients[parameter].defined();
      own.push_back(defined ? Copied(gradients[parameter], cut_(sizes_[parameter])[region])
                            : at::Tensor());
    }
    ASSERT_OK(server.optimizer.BeginStep(std::move(own), std::nullopt, {}, facts));
  }
  for (int round = 0; round < CouplingOf(kind_).reduce_rounds; ++round) {
    std::vector<std::vector<ShardSums>> parts;
    for (Server& server : servers_) {
      RunBlocks(server.optimizer);
      ASSERT_OK_AND_ASSIGN(std::vector<ShardSums> own, server.optimizer.FinishRound());
      parts.push_back(std::move(own));
    }
    AddUp(parts);
    for (size_t i = 0; i < parts.size(); ++i) {
      ASSERT_OK(servers_[i].optimizer.BeginRound(parts[i]));
    }
  }
  for (Server& server : servers_) {
    RunBlocks(server.optimizer);
    ASSERT_OK(server.optimizer.FinishStep());
  }
  for (size_t i = 0; i < snapshots.size(); ++i) {
    const std::vector<at::Tensor> after = copies_of(snapshots[i]);
    for (size_t j = 0; j < after.size(); ++j) EXPECT_TRUE(after[j].equal(before[i][j])) << "held";
  }
}

std::map<std::string, at::Tensor> CoupledFleet::Record() const {
  std::map<std::string, at::Tensor> record;
  const auto put = [&record](const std::string& key, const Shape& sizes, const Region& region,
                             const at::Tensor& part) {
    const auto [found, added] = record.try_emplace(key);
    // Every bit is set: NaN shows where no shard has written.
    if (added) found->second = at::full(sizes, std::nan(""), part.options());
    const at::Tensor place = Narrowed(found->second, region);
    const at::Tensor written = place.isnan().logical_not();
    EXPECT_TRUE(place.masked_select(written).equal(part.view(region.sizes).masked_select(written)))
        << key << ": shards differ";
    place.copy_(part.view(region.sizes));
  };
  for (const Server& server : servers_) {
    const LocalState& state = server.optimizer.state();
    for (size_t i = 0; i < state.shards.size(); ++i) {
      const auto [parameter, index] = server.shards[i];
      const std::string prefix = names_[parameter] + "/";
      const Shape& sizes = sizes_[parameter];
      const Region region = cut_(sizes)[index];
      put(prefix + "value", sizes, region, state.shards[i].value);
      for (const TensorState& entry : state.shards[i].states) {
        const absl::StatusOr<std::unique_ptr<const Optimizer>> made = MakeOptimizer(kind_);
        for (const StateSpec& spec : (*made)->AllStates()) {
          if (spec.name != entry.name) continue;
          put(prefix + entry.name, ExtentSizes(spec.extent, sizes),
              ExtentRegion(spec.extent, region), entry.tensor);
        }
      }
      for (const ScalarState& scalar : state.scalars[parameter]) {
        EXPECT_EQ(scalar.dtype, DType::kFloat32);
        put(prefix + scalar.name, {}, {}, at::full({}, scalar.value, at::kFloat));
      }
    }
  }
  return record;
}

}  // namespace shardstep
