#include "shardstep/tests/simulation/disk_probes.h"

#include <utility>

#include "absl/strings/match.h"
#include "shardstep/server/record_file.h"

namespace shardstep {

void ProbeLog(FileSystem* files, const std::string& directory, Probes* probes) {
  const auto entries = files->List(directory);
  if (!entries.ok()) return;
  for (const DirectoryEntry& entry : *entries) {
    auto file = files->OpenFile(JoinPath(directory, entry.name));
    if (!file.ok()) continue;
    RecordReader reader(*std::move(file));
    auto record = reader.Next();
    if (absl::StartsWith(entry.name, "base-")) {
      const bool pending =
          record.ok() && record->has_value() && !(*record)->message.base().pending_lsns().empty();
      if (pending) probes->Hit("base_with_pending");
      continue;
    }
    while (record.ok() && record->has_value()) record = reader.Next();
    if (absl::StartsWith(entry.name, "log-") && reader.torn()) probes->Hit("log_torn");
  }
}

}  // namespace shardstep
