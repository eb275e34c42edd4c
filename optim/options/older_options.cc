#include "shardstep/optim/options/older_options.h"

#include "absl/status/statusor.h"
#include "shardstep/optim/options/option_checks.h"

namespace shardstep {
namespace {

constexpr absl::string_view kAddedSince[] = {
    "nesterov",   "amsgrad",        "maximize", "foreach",
    "capturable", "differentiable", "fused",    "decoupled_weight_decay",
};
// RMSprop had neither at first.
constexpr absl::string_view kAddedToRmsprop[] = {"momentum", "centered"};

}  // namespace

void AddOlderOptions(absl::string_view kind, OptionMap* options) {
  const absl::StatusOr<OptionMap> defaults = CompleteOptions(kind, {});
  if (!defaults.ok()) return;
  const auto add = [&](absl::string_view name) {
    const OptionValue* value = defaults->Find(name);
    if (value != nullptr && options->Find(name) == nullptr) options->Set(name, *value);
  };
  for (const absl::string_view name : kAddedSince) add(name);
  // Whatever the source says, which may be a state dict of Adam.
  if (kind == "AdamW") options->Set("decoupled_weight_decay", true);
  if (kind != "RMSprop") return;
  for (const absl::string_view name : kAddedToRmsprop) add(name);
}

}  // namespace shardstep
