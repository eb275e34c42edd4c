// Faults: places where a test makes a server fail, and mistakes that a test can have it make. Both
// exist only in code that is compiled with SHARDSTEP_FAULTS, which no released binary is.
//
// A failpoint is a place, named once in the whole product; what happens there (nothing, an error, a
// pause, the end of the process) is the test's to say. Names are "<where>.<behind what>".
//
//   SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("log.append"));   // where an error can be told
//   SHARDSTEP_PASS("host.applied");                                  // elsewhere: no error
//   if (!SHARDSTEP_BUG("skip_sync")) SHARDSTEP_RETURN_IF_ERROR(writer->Sync());
#ifndef SHARDSTEP_SERVER_FAULTS_H_
#define SHARDSTEP_SERVER_FAULTS_H_

#ifdef SHARDSTEP_FAULTS

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace shardstep::faults {

// Called at every failpoint, on the thread that comes by, which it may hold up or end. `fallible`:
// an error is passed on, else it is ignored. Set while no server runs; null: nothing happens.
using Hook = std::function<absl::Status(const char* point, bool fallible)>;
void SetHook(Hook hook);
absl::Status Hit(const char* point, bool fallible);

// The one mistake to be made in this process; empty: none. Set while no server runs.
void SetBug(std::string name);
bool Bug(const char* name);

}  // namespace shardstep::faults

#define SHARDSTEP_FAILPOINT(point) ::shardstep::faults::Hit(point, true)
#define SHARDSTEP_PASS(point) static_cast<void>(::shardstep::faults::Hit(point, false))
#define SHARDSTEP_BUG(name) ::shardstep::faults::Bug(name)

#else

#define SHARDSTEP_FAILPOINT(point) absl::OkStatus()
#define SHARDSTEP_PASS(point) static_cast<void>(0)
#define SHARDSTEP_BUG(name) false

#endif

#endif  // SHARDSTEP_SERVER_FAULTS_H_
