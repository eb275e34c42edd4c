// Reply: how an asynchronous call hands its result back.
#ifndef SHARDSTEP_SERVER_REPLY_H_
#define SHARDSTEP_SERVER_REPLY_H_

#include <functional>

#include "absl/status/statusor.h"

namespace shardstep {

// Called exactly once, from any thread, possibly before the call that took it returns. Must not
// block.
template <typename T>
using Reply = std::function<void(absl::StatusOr<T>)>;

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_REPLY_H_
