// Pushes: all pushes of one handle, over all servers.
#ifndef SHARDSTEP_CLIENT_PUSHES_H_
#define SHARDSTEP_CLIENT_PUSHES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/optimizer_calls.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/push_lane.h"
#include "shardstep/client/row_gradient.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/common.pb.h"

namespace shardstep::internal {

// The regions that this session gives of each parameter, by position; empty: the whole parameter.
using DeclaredRegions = std::vector<std::vector<Region>>;

// A push goes to the servers that have a shard of a parameter it touches. In synchronous mode the
// others get it too, without content: a server keeps memory free for a trainer rank of which it has
// nothing yet.
//
// A push is open (one at most), then live until Drop. Methods that name a push fail if it is not
// the open one. One thread uses it, except that the open push may be filled, finished and abandoned
// by another. Blocks where it says so.
class Pushes {
 public:
  // Names a push. The sequence alone does not: that of an abandoned push is used again.
  struct PushId {
    uint64_t sequence = 0;
    uint64_t opening = 0;  // counts all that were begun
  };

  // `header`: optimizer and session.
  Pushes(std::shared_ptr<const ClientCore> client, const v1::CallHeader& header,
         std::shared_ptr<const OptimizerIndex> index, DeclaredRegions regions);

  // The optimizer has more parameters, or another history. Live pushes stay, and are sent under the
  // new plan where they are sent again. Blocks while one is being added to.
  void Adopt(std::shared_ptr<const OptimizerIndex> index);

  // Begins the next push. `begin` lacks only sequences. FAILED_PRECONDITION: one is open, or the
  // live ones have another weight.
  absl::StatusOr<PushId> Begin(v1::Begin begin);
  absl::Status Add(PushId push, absl::string_view name, absl::Span<const ConstTensorView> views,
                   const std::shared_ptr<const void>& owner);
  absl::Status AddRows(PushId push, absl::string_view name, const RowGradient& gradient,
                       const std::shared_ptr<const void>& owner);
  // Blocks while another thread adds to it.
  absl::Status Finish(PushId push);
  // As if it had never begun. Blocks until nothing refers to what was added, or is being added.
  void Abandon(PushId push);

  // A finished push of zeros for every parameter that a live push touches, in place of them (no
  // rows where all of them have rows); nothing if there is none. Blocks as Drop.
  absl::Status ReplaceWithZeros();

  // The live pushes are first_live()..last().
  uint64_t first_live() const;
  uint64_t last() const;
  std::optional<PushId> open() const;
  double weight() const;
  // Where the live pushes went, unless each went to every server. None is open.
  std::optional<v1::PartialPushes> partial() const;

  // Blocks until all servers have acknowledged the pushes up to `last`.
  absl::Status AwaitAcks(uint64_t last, absl::Time deadline);
  // A server lacks these.
  void Repeat(int server_rank, uint64_t first, uint64_t last);
  // Pushes below `first_live` are dead. Blocks until nothing refers to their memory.
  void Drop(uint64_t first_live);

 private:
  struct Held {
    v1::Begin begin;
    std::vector<bool> touched;  // by parameter
    std::vector<bool> rows;     // of these: the gradient consists of rows
    std::vector<bool> servers;  // that get the push, by server rank
    std::vector<std::shared_ptr<const void>> owners;
  };

  // By parameter.
  struct Touched {
    std::vector<bool> any;    // some live push touches it
    std::vector<bool> whole;  // one of them by a gradient that does not consist of rows
  };

  // What the live pushes touch together.
  Touched AllTouched() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckOpen(PushId push) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Until StopAdding the push stays open.
  absl::Status StartAdding(PushId push);
  void StopAdding();
  // From now on nobody can add to the push, and, after blocking, nobody does. Until Close.
  absl::Status StartClosing(PushId push) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Close() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Marks the parameter as touched by the open push, by rows or whole.
  absl::Status Touch(uint64_t sequence, const OptimizerIndex& index, int parameter, bool rows,
                     const std::shared_ptr<const void>& owner);
  void Send(uint64_t sequence, const OptimizerIndex& index, int parameter,
            const std::vector<Block>& blocks, bool zeros);
  // `slices` by server rank.
  void SendSlices(uint64_t sequence, std::vector<std::vector<OutgoingSlice>> slices);
  std::shared_ptr<const OptimizerIndex> index() const;
  // What this session gives of the parameter.
  std::vector<Region> RegionsOf(const OptimizerIndex& index, int parameter) const;

  const std::shared_ptr<const ClientCore> client_;
  const v1::CallHeader header_;

  mutable Mutex mutex_;
  std::shared_ptr<const OptimizerIndex> index_ ABSL_GUARDED_BY(mutex_);
  DeclaredRegions regions_ ABSL_GUARDED_BY(mutex_);
  std::optional<PushId> open_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  int adding_ ABSL_GUARDED_BY(mutex_) = 0;  // calls
  CondVar changed_;                         // closing_ or adding_
  uint64_t openings_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t first_live_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t last_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Held> held_ ABSL_GUARDED_BY(mutex_);  // by sequence

  // By server rank. Last: they refer to what owners keep alive.
  std::vector<std::unique_ptr<PushLane>> lanes_;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_PUSHES_H_
