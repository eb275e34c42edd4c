// LoadStateDict: what is proposed, and what is written to the servers then.
#ifndef SHARDSTEP_CLIENT_LOAD_H_
#define SHARDSTEP_CLIENT_LOAD_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/load_source.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// What the coordinator judges of the source, with its digest: CRC32C over the rest of the message
// and then all tensors' bytes in their order, and how many bytes these were. Reads all of the
// source. INVALID_ARGUMENT: a tensor that is not of the parameter's sizes and dtype as `index` has
// it or its master, or a scalar that is none.
absl::StatusOr<v1::LoadChange> MakeLoadChange(const LoadSource& source, const OptimizerIndex& index,
                                              bool strict);

// Proposes the source under the session and lineage of `header` and writes what it is asked for.
// Blocks until the load is done everywhere, is refused, or `deadline`.
absl::StatusOr<v1::ProposeReply::Done> LoadFrom(const LoadSource& source, const ClientCore& client,
                                                const v1::CallHeader& header,
                                                const OptimizerIndex& index,
                                                const LoadOptions& options, absl::Time deadline);
// The same of a checkpoint, which the servers read.
absl::StatusOr<v1::ProposeReply::Done> LoadFrom(const CheckpointSource& source,
                                                const ClientCore& client,
                                                const v1::CallHeader& header,
                                                const LoadOptions& options, absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_LOAD_H_
