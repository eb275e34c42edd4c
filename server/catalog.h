// Catalog: what a server keeps on disk in every durability mode: its incarnation, and for each
// optimizer definition, plan, lineage and the version last noted. So a memory that was lost is
// known as lost.
//
// Files in the data directory: LOCK (held while a server runs), incarnation,
// catalog/<optimizer>.pb. Each is written to a temporary file, synced, renamed, and its directory
// synced.
#ifndef SHARDSTEP_SERVER_CATALOG_H_
#define SHARDSTEP_SERVER_CATALOG_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/v1/catalog.pb.h"

namespace shardstep {

// Thread-safe: writes of different optimizers may run at once; each blocks on the disk. Writes of
// one optimizer are serialized by its shard host.
class Catalog {
 public:
  // Creates the directory where it is missing, takes its lock and the next incarnation.
  // FAILED_PRECONDITION if another process holds the lock; DATA_LOSS naming the file that cannot be
  // read.
  static absl::StatusOr<std::unique_ptr<Catalog>> Open(const std::string& directory);
  ~Catalog();
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  uint64_t incarnation() const { return incarnation_; }
  // As found at Open, by name: what earlier incarnations held.
  const std::map<std::string, v1::CatalogEntry>& found() const { return found_; }

  absl::Status Write(const std::string& optimizer, const v1::CatalogEntry& entry);
  absl::Status Remove(const std::string& optimizer);

 private:
  Catalog() = default;

  std::string directory_;
  int lock_ = -1;
  uint64_t incarnation_ = 0;
  std::map<std::string, v1::CatalogEntry> found_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CATALOG_H_
