// Faults of a whole process, by its environment; only compiled with SHARDSTEP_FAULTS (faults.h).
//
//   SHARDSTEP_BUG=skip_sync
//   SHARDSTEP_FAILPOINTS="log.append=error@2;host.applied=crash@1;log.sync=delay@3"
//
// `crash` ends the process as SIGKILL does, `error` fails what is done there, `delay` holds the
// thread up for half a second, each the n-th time that the point is passed.
#ifndef SHARDSTEP_SERVER_PROCESS_FAULTS_H_
#define SHARDSTEP_SERVER_PROCESS_FAULTS_H_

#include "absl/status/status.h"

namespace shardstep::faults {

// Before any thread is started. INVALID_ARGUMENT: what the environment says is not understood.
absl::Status ConfigureFromEnvironment();

}  // namespace shardstep::faults

#endif  // SHARDSTEP_SERVER_PROCESS_FAULTS_H_
