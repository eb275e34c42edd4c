#include "shardstep/tests/faults/kill_moment.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/server/record_file.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

absl::StatusOr<KillMoment> MomentOf(const std::string& log_directory, uint64_t acknowledged) {
  FileSystem* const files = PosixFileSystem();
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, files->List(log_directory));
  uint64_t prepared = 0;
  uint64_t decided = 0;
  for (const DirectoryEntry& entry : entries) {
    if (!absl::StartsWith(entry.name, "log-")) continue;
    SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file,
                               files->OpenFile(JoinPath(log_directory, entry.name)));
    RecordReader reader(std::move(file));
    while (true) {
      SHARDSTEP_ASSIGN_OR_RETURN(const std::optional<RecordReader::Record> record, reader.Next());
      if (!record) break;
      if (record->message.has_prepare()) {
        prepared = std::max(prepared, record->message.prepare().request().version());
      } else if (record->message.has_decision()) {
        decided = std::max(decided, record->message.decision().commit().version());
      }
    }
  }
  if (decided > acknowledged) return KillMoment::kCommit;
  return prepared > acknowledged ? KillMoment::kPrepare : KillMoment::kPush;
}

}  // namespace shardstep
