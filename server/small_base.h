// One server's share of a small optimizer, for tests of the files that hold it.
#ifndef SHARDSTEP_SERVER_SMALL_BASE_H_
#define SHARDSTEP_SERVER_SMALL_BASE_H_

#include <cstdint>
#include <string>

#include "ATen/ops/full.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/v1/log.pb.h"

namespace shardstep {

// Optimizer "m": "a", six float32 in two shards on server 0 and one on server 1; "b", a float64 on
// server 0.
inline v1::BaseHeader SmallBaseHeader(uint64_t lsn) {
  v1::BaseHeader header;
  header.set_lsn(lsn);
  header.set_version(lsn);
  v1::OptimizerDefinition* const definition = header.mutable_description()->mutable_definition();
  definition->set_name("m");
  definition->set_kind("Adam");
  definition->mutable_mode()->mutable_synchronous()->set_trainers(1);
  v1::ParamGroup* const group = definition->add_groups();
  v1::Plan* const plan = header.mutable_description()->mutable_plan();
  plan->set_plan_id("p");
  const auto add_parameter = [&](const std::string& name, v1::DType dtype, int64_t size) {
    v1::Parameter* const parameter = definition->add_parameters();
    parameter->set_name(name);
    parameter->set_dtype(dtype);
    parameter->add_sizes(size);
    group->add_parameters(definition->parameters_size() - 1);
  };
  const auto add_shard = [&](int server, int64_t offset, int64_t size) {
    v1::PlannedShard* const shard = plan->add_shards();
    shard->set_parameter(definition->parameters_size() - 1);
    shard->mutable_metadata()->mutable_region()->add_offsets(offset);
    shard->mutable_metadata()->mutable_region()->add_sizes(size);
    shard->mutable_metadata()->set_server_rank(server);
    shard->mutable_metadata()->set_device("cpu");
  };
  add_parameter("a", v1::FLOAT32, 6);
  add_shard(0, 0, 2);
  add_shard(1, 2, 1);
  add_shard(0, 3, 3);
  add_parameter("b", v1::FLOAT64, 1);
  add_shard(0, 0, 1);
  *header.mutable_description()->mutable_groups() = definition->groups();
  header.mutable_description()->add_states()->set_name("exp_avg");
  header.mutable_description()->add_states()->set_name("exp_avg_sq");
  return header;
}

// Server 0's; "b" was never stepped.
inline LocalState SmallState(double value) {
  LocalState state;
  const auto add = [&](size_t parameter, int64_t elements, at::ScalarType dtype) {
    LocalState::Shard& shard = state.shards.emplace_back();
    shard.parameter = parameter;
    shard.value = at::full({elements}, value, dtype);
    if (parameter > 0) return;
    shard.states.push_back({"exp_avg", at::full({elements}, value + 1, dtype)});
    shard.states.push_back({"exp_avg_sq", at::full({elements}, value + 2, dtype)});
  };
  add(0, 2, at::kFloat);
  add(0, 3, at::kFloat);
  add(1, 1, at::kDouble);
  state.scalars = {{{"step", 7, DType::kFloat32}}, {}};
  return state;
}

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_SMALL_BASE_H_
