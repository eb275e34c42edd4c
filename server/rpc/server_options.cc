#include "shardstep/server/rpc/server_options.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {

int64_t PhysicalMemoryBytes() {
  const int64_t pages = sysconf(_SC_PHYS_PAGES);
  const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  return pages > 0 && page_bytes > 0 ? pages * page_bytes : int64_t{1} << 30;
}

absl::Status ServerOptions::Validate() const {
  const auto invalid = [](auto... words) {
    return absl::InvalidArgumentError(absl::StrCat(words...));
  };
  if (fleet_file.empty()) return invalid("fleet file: no path");
  if (data_directory.empty()) return invalid("data directory: no path");
  if (server_rank < 0 || server_rank >= static_cast<int>(kMaxServers)) {
    return invalid("server rank: got ", server_rank, ", expected 0 to ", kMaxServers - 1);
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckListenAddress(listen, insecure));
  for (const std::string& device : devices) {
    if (device != "cpu") {
      return invalid("device \"", device, "\": not offered by this server, expected \"cpu\"");
    }
  }
  if (devices.empty()) return invalid("devices: none, expected \"cpu\"");
  if (threads < 1) return invalid("threads: got ", threads, ", expected at least 1");
  const auto positive = [&](const char* name, int64_t bytes) {
    return bytes > 0 ? absl::OkStatus() : invalid(name, ": got ", bytes, " bytes, expected more");
  };
  SHARDSTEP_RETURN_IF_ERROR(positive("shard memory", shard_memory));
  SHARDSTEP_RETURN_IF_ERROR(positive("push memory", push_memory));
  SHARDSTEP_RETURN_IF_ERROR(positive("snapshot memory", snapshot_memory));
  SHARDSTEP_RETURN_IF_ERROR(positive("log size", log_size));
  if (checkpoint_interval && *checkpoint_interval < absl::Milliseconds(100)) {
    return invalid("checkpoint interval: got ", absl::FormatDuration(*checkpoint_interval),
                   ", expected at least 100ms");
  }
  if (keep_last < 1) return invalid("keep last: got ", keep_last, ", expected at least 1");
  if (lease < absl::Milliseconds(100) || lease > absl::Hours(24)) {
    return invalid("lease: got ", absl::FormatDuration(lease), ", expected 100ms to 24h");
  }
  return absl::OkStatus();
}

}  // namespace shardstep
