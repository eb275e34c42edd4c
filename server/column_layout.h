// A layout that is cut through rows, with states per row and per column, for tests of what holds
// it.
#ifndef SHARDSTEP_SERVER_COLUMN_LAYOUT_H_
#define SHARDSTEP_SERVER_COLUMN_LAYOUT_H_

#include <memory>

#include "shardstep/server/layout.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/wire/definition.h"

namespace shardstep {

// "w" [6,5] of float64 in two blocks of columns on server 1 and one on server 0; "none" without
// elements on server 1.
inline std::shared_ptr<const Layout> ColumnLayout(int server) {
  OptimizerDescription description;
  OptimizerDefinition& definition = description.definition;
  definition.name = "m";
  definition.kind = "Adam";
  definition.parameters = {{"w", DType::kFloat64, {6, 5}, Chunk{1, {{1}, {0}, {1}}}},
                           {"none", DType::kFloat32, {2, 0}, Whole{1}}};
  definition.sharded = {false, false};
  ParamGroup group;
  group.params = {"w", "none"};
  definition.groups = description.groups = {group};
  description.plan = MakePlan(definition.parameters, 2).value();
  description.states = {StateSpec::Tensor("row_var", Extent::kRow),
                        StateSpec::Tensor("col_var", Extent::kColumn),
                        StateSpec::Tensor("exp_avg")};
  return Layout::Make(DescriptionToProto(description), server).value();
}

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_COLUMN_LAYOUT_H_
