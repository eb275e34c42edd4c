// Catalog: what a server keeps on disk in every durability mode: its incarnation, and for each
// optimizer definition, plan, lineage and the version last noted. So a memory that was lost is
// known as lost.
//
// Files in the data directory: incarnation, catalog/<optimizer>.pb, and with durability
// "checkpoint" and "wal" fences/<optimizer>.pb. Each is written to a temporary file, synced,
// renamed, and its directory synced. wal/<optimizer>/ is the write-ahead log's; lost/ has logs that
// could not be replayed, for people.
#ifndef SHARDSTEP_SERVER_CATALOG_H_
#define SHARDSTEP_SERVER_CATALOG_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/v1/catalog.pb.h"

namespace shardstep {

// Thread-safe: writes of different optimizers may run at once; each blocks on the disk. Writes of
// one optimizer are serialized by its shard host.
class Catalog {
 public:
  // Creates the directory where it is missing and takes the next incarnation. DATA_LOSS naming the
  // file that cannot be read. `files` must outlive it. Nobody else may use the directory: see
  // DirectoryLock.
  static absl::StatusOr<std::unique_ptr<Catalog>> Open(FileSystem* files,
                                                       const std::string& directory);
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  uint64_t incarnation() const { return incarnation_; }
  // As found at Open, by name: what earlier incarnations held.
  const std::map<std::string, v1::CatalogEntry>& found() const { return found_; }
  const std::map<std::string, v1::FenceEntry>& fences() const { return fences_; }
  // The optimizers that have a write-ahead log.
  const std::vector<std::string>& logs() const { return logs_; }

  absl::Status Write(const std::string& optimizer, const v1::CatalogEntry& entry);
  absl::Status WriteFences(const std::string& optimizer, const v1::FenceEntry& entry);
  // Of both. OK if there are none.
  absl::Status Remove(const std::string& optimizer);
  // Where the write-ahead log of `optimizer` lies.
  std::string LogDirectory(const std::string& optimizer) const;
  // Moves what lies there out of the way of a new log, to lost/<optimizer>-<n>. OK if there is
  // none.
  absl::Status SetLogAside(const std::string& optimizer);

 private:
  Catalog(FileSystem* files, std::string directory);

  absl::Status TakeIncarnation();
  absl::Status FindLogs();
  absl::Status RemoveEntry(absl::string_view folder, absl::string_view optimizer);

  FileSystem* const files_;
  const std::string directory_;
  uint64_t incarnation_ = 0;
  std::map<std::string, v1::CatalogEntry> found_;
  std::map<std::string, v1::FenceEntry> fences_;
  std::vector<std::string> logs_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CATALOG_H_
