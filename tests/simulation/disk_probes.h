// DiskProbes: what a server that starts finds on its disk.
#ifndef SHARDSTEP_TESTS_SIMULATION_DISK_PROBES_H_
#define SHARDSTEP_TESTS_SIMULATION_DISK_PROBES_H_

#include <string>

#include "shardstep/checkpoint/file_system.h"
#include "shardstep/tests/simulation/probes.h"

namespace shardstep {

// Counts what is rare in the write-ahead log in that directory, if there is one.
void ProbeLog(FileSystem* files, const std::string& directory, Probes* probes);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_DISK_PROBES_H_
