// The parts of a manifest that say what the optimizer is, as JSON. To JSON always succeeds. From
// JSON checks everything that the plain types promise: INVALID_ARGUMENT names the place. Pure
// functions, safe from any thread.
#ifndef SHARDSTEP_CHECKPOINT_DEFINITION_JSON_H_
#define SHARDSTEP_CHECKPOINT_DEFINITION_JSON_H_

#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {

// {"name", "kind", "defaults", "groups", "parameters": [{"name", "dtype", "shape", "sharded",
// "spec"}], "mode"}.
Json DefinitionToJson(const OptimizerDefinition& definition);
// The kind is known; defaults and groups are complete or are made so from PyTorch's defaults;
// parameters have valid, different names, and specs that fit their shapes; the groups name
// parameters only, each once at most.
absl::StatusOr<OptimizerDefinition> DefinitionFromJson(const Json& json);

// The groups as they are now: those of DefinitionFromJson, and every parameter is in one.
absl::StatusOr<std::vector<ParamGroup>> CurrentGroupsFromJson(
    const Json& json, const OptimizerDefinition& definition);

// [{"name", "dtype" of a scalar}].
Json StatesToJson(const std::vector<StateSpec>& states);
// Names are valid, different and without dots.
absl::StatusOr<std::vector<StateSpec>> StatesFromJson(const Json& json);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_DEFINITION_JSON_H_
