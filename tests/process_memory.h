// How much memory a process uses.
#ifndef SHARDSTEP_TESTS_PROCESS_MEMORY_H_
#define SHARDSTEP_TESTS_PROCESS_MEMORY_H_

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace shardstep {

// Whether resident memory says how much a program holds: AddressSanitizer keeps what was freed, to
// catch its use.
#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kFreedMemoryIsKept = true;
#else
inline constexpr bool kFreedMemoryIsKept = false;
#endif

// The process's resident set; 0 if there is no such process.
inline int64_t ResidentBytes(pid_t pid) {
  std::ifstream statm(absl::StrCat("/proc/", pid, "/statm"));
  int64_t pages_mapped = 0, pages_resident = 0;
  statm >> pages_mapped >> pages_resident;
  return pages_resident * sysconf(_SC_PAGESIZE);
}

// The largest that it has been; 0 likewise.
inline int64_t PeakResidentBytes(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (absl::StartsWith(line, "VmHWM:")) return std::stoll(line.substr(6)) << 10;
  }
  return 0;
}

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_PROCESS_MEMORY_H_
