// Updates by ATen's operators in parts that stay in a core's cache: each operator goes over its
// whole operands, so that over a large block all but the first would wait for memory.
#ifndef SHARDSTEP_OPTIM_PARTS_H_
#define SHARDSTEP_OPTIM_PARTS_H_

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// An update that multiplies the gradient by Block's coefficient and then does what `update`, which
// comes from Begin(), does; part by part (blocks.h) if `any_part`. Thread-safe as `update` is.
BlockUpdate ScaledInParts(BlockUpdate update, bool any_part);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_PARTS_H_
