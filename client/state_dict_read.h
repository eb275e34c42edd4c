// Reading a state_dict: into memory, as a stream, into a file.
#ifndef SHARDSTEP_CLIENT_STATE_DICT_READ_H_
#define SHARDSTEP_CLIENT_STATE_DICT_READ_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/pull_core.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/client/state_dict_stream.h"

namespace shardstep::internal {

// See ShardedOptimizer for all three. `at_least`: the version to wait for. They block. Where the
// snapshot is lost while it is read, the first and the last begin again with another one.
absl::StatusOr<StateDict> ReadStateDict(PullCore* pull, const StateDictOptions& options,
                                        uint64_t at_least);
absl::StatusOr<std::unique_ptr<StateDictStream>> OpenStateDictStream(
    PullCore* pull, const StateDictOptions& options, uint64_t at_least, absl::Time deadline);
absl::StatusOr<SaveResult> SaveStateDictTo(PullCore* pull, const std::string& path,
                                           const SaveOptions& options, uint64_t at_least);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STATE_DICT_READ_H_
