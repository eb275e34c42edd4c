// State dicts of older PyTorch versions, whose groups lack options that were added since. Pure,
// safe from any thread.
#ifndef SHARDSTEP_OPTIM_OPTIONS_OLDER_OPTIONS_H_
#define SHARDSTEP_OPTIM_OPTIONS_OLDER_OPTIONS_H_

#include "absl/strings/string_view.h"
#include "shardstep/optim/options/option_value.h"

namespace shardstep {

// Gives a loaded group's `options` those that it lacks and that __setstate__ of torch.optim's class
// `kind` adds in PyTorch 2.11: with the class's value, whatever this optimizer was made with.
// Others that it lacks, as `lr`, stay away. As there, AdamW's decoupled_weight_decay becomes true
// even where the group has it. Does nothing for an unknown kind.
void AddOlderOptions(absl::string_view kind, OptionMap* options);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_OLDER_OPTIONS_H_
