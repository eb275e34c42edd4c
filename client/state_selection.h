// What a state_dict call asks for, made concrete: which tensors there are and which part of each.
#ifndef SHARDSTEP_CLIENT_STATE_SELECTION_H_
#define SHARDSTEP_CLIENT_STATE_SELECTION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/slice_sink.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/sharding/region.h"
#include "shardstep/v1/shards.pb.h"

namespace shardstep::internal {

// The tensors that `options` name, by parameter and v1.Slice.tensor, each with the part of it that
// is wanted (a scalar's is not used). State may be missing at some version.
class StateSelection {
 public:
  using Key = PresenceSink::Key;

  // NOT_FOUND with the nearest name: a parameter or state that there is not. INVALID_ARGUMENT: a
  // part that does not fit, a tensor in two parts, nothing at all.
  static absl::StatusOr<StateSelection> Make(std::shared_ptr<const OptimizerIndex> index,
                                             const StateDictOptions& options);

  const std::map<Key, Region>& wanted() const { return wanted_; }
  // What a server is asked for.
  const v1::Selector& selector() const { return selector_; }
  // Asks for one element of every state tensor of the wanted parameters, and for their scalars, in
  // requests of bounded size, each with the parameters that it asks about.
  std::vector<std::pair<v1::Selector, std::vector<int>>> PresenceSelectors() const;

  // The entries of what is wanted and is there, with their keys. `present`: of state.
  std::vector<std::pair<Key, StateDictEntry>> Entries(
      const std::map<Key, std::optional<double>>& present) const;

 private:
  explicit StateSelection(std::shared_ptr<const OptimizerIndex> index) : index_(std::move(index)) {}

  absl::Status Add(const TensorPart& part, const StateDictOptions& options);
  absl::Status Want(Key key, const Region& region);

  std::shared_ptr<const OptimizerIndex> index_;
  std::map<Key, Region> wanted_;
  v1::Selector selector_;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STATE_SELECTION_H_
