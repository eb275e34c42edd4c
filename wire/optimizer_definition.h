// What an optimizer is, as plain data without protobuf: what a user describes, a coordinator plans
// and a manifest keeps.
#ifndef SHARDSTEP_WIRE_OPTIMIZER_DEFINITION_H_
#define SHARDSTEP_WIRE_OPTIMIZER_DEFINITION_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/plan.h"

namespace shardstep {

// Trainer ranks 0..trainers-1 step together; a step never runs with fewer.
struct Synchronous {
  explicit Synchronous(int trainers) : trainers(trainers) {}
  friend bool operator==(Synchronous a, Synchronous b) { return a.trainers == b.trainers; }
  int trainers;
};

// Each trainer's step is a change of its own. Gradients computed on a version more than
// max_staleness behind are refused.
struct Asynchronous {
  explicit Asynchronous(uint64_t max_staleness) : max_staleness(max_staleness) {}
  friend bool operator==(Asynchronous a, Asynchronous b) {
    return a.max_staleness == b.max_staleness;
  }
  uint64_t max_staleness;
};

using Mode = std::variant<Synchronous, Asynchronous>;

// "synchronous with 2 trainers", "asynchronous with max_staleness 8".
std::string ToString(const Mode& mode);

// Limits on one definition.
inline constexpr int kMaxTrainers = 65536;
inline constexpr size_t kMaxGroups = 65536;
inline constexpr size_t kMaxOptions = 256;  // of a group

struct OptimizerDefinition {
  std::string name;
  std::string kind;    // "AdamW"; one of KnownOptimizers()
  OptionMap defaults;  // the constructor's options, complete
  std::vector<ParamGroup> groups;
  std::vector<ParameterShape> parameters;
  // By parameter: a ShardedTensor, given in regions by the sessions of a step and reduced by sum.
  std::vector<bool> sharded;
  Mode mode = Synchronous(1);
};

// What Describe tells: an optimizer as created, its plan, and its groups as they are now.
struct OptimizerDescription {
  OptimizerDefinition definition;
  Plan plan;
  std::vector<ParamGroup> groups;
  std::vector<StateSpec> states;
};

// The name of an optimizer or of a fleet: [A-Za-z0-9._-]{1,128}, not starting with a dot.
// INVALID_ARGUMENT otherwise; `what` ("optimizer", "fleet") begins the message.
absl::Status ValidateIdentifier(absl::string_view what, absl::string_view name);
absl::Status ValidateOptimizerName(absl::string_view name);

// Whether whoever proposes `proposed` may attach to the optimizer that was created as `existing`:
// OK if parameters (names in order, dtypes, sizes, sharded or not), kind, defaults, groups and mode
// are equal; sharding specs do not count. Else FAILED_PRECONDITION DEFINITION_DIFFERS naming the
// first difference:
//   optimizer "digits" exists with a different definition: parameter 3 "fc2.weight": shape
//   [10,128], got [10,64]
absl::Status FirstDifference(const OptimizerDefinition& existing,
                             const OptimizerDefinition& proposed);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_OPTIMIZER_DEFINITION_H_
