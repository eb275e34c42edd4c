// StateDictReader: a state_dict piece by piece, so that it is never held as a whole.
//
//   auto reader = optimizer.OpenStateDict().value();
//   while (auto piece = reader.Next().value()) {
//     const StateDictEntry& entry = reader.entries()[piece->entry];
//     file.Write(PositionOf(entry) + piece->offset, piece->bytes);
//   }
//
// Reads from all servers in parallel, and holds a few MiB of each server's part at most: a reader
// that is not asked for more makes its servers wait. The snapshot's lease is renewed until the
// reader is destroyed or has returned its last piece.
//
// Used by one thread at a time. Works on while the handle it came from is gone, up to the time that
// StateDictOptions names.
#ifndef SHARDSTEP_CLIENT_STATE_DICT_READER_H_
#define SHARDSTEP_CLIENT_STATE_DICT_READER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/optim/options/param_group.h"

namespace shardstep {

namespace internal {
class StateDictStream;
}  // namespace internal

class StateDictReader {
 public:
  // Of the SDK's own use.
  explicit StateDictReader(std::unique_ptr<internal::StateDictStream> stream);
  StateDictReader(StateDictReader&&) noexcept;
  StateDictReader& operator=(StateDictReader&&) noexcept;
  // Ends the reads and closes the snapshot; blocks for a second at most.
  ~StateDictReader();

  uint64_t version() const;
  uint64_t lineage() const;
  const std::vector<ParamGroup>& param_groups() const;
  const std::map<int, std::string>& trainer_states() const;
  // Everything that pieces will come of, by parameter in the optimizer's order, a parameter's value
  // before its state. State that a parameter does not have at this version is not there.
  const std::vector<StateDictEntry>& entries() const;
  // Bytes of all entries together.
  uint64_t total_bytes() const;

  // The next piece, from whichever server sent one; nullopt after the last: then every byte of
  // every entry has come exactly once. Its bytes are valid until the next call. Blocks. ABORTED
  // SNAPSHOT_GONE: the lease was lost, begin again with a new reader. After an error every call
  // returns it.
  absl::StatusOr<std::optional<StateDictPiece>> Next();

 private:
  std::unique_ptr<internal::StateDictStream> stream_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_STATE_DICT_READER_H_
