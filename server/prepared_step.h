// PreparedStep: the gradients of one step on one server, measured and waiting for the decision.
#ifndef SHARDSTEP_SERVER_PREPARED_STEP_H_
#define SHARDSTEP_SERVER_PREPARED_STEP_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/optim/gradient_sum.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/optim/reduction.h"
#include "shardstep/optim/row_reduction.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/push.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// Create, RunBlock for every block on any threads, Finish. Holds the pushes it reads, and what they
// took of their budget, as long as a gradient is still their sum.
class PreparedStep {
 public:
  // The pushes of one step, by contribution, each ascending.
  using Pushes = std::vector<std::vector<std::shared_ptr<const Push>>>;

  // A parameter is stepped if any push of any trainer touches it; a trainer without a gradient for
  // it counts as zeros. Its gradient consists of rows if that of every push does; else rows are
  // added into the whole. `options` are the groups' when the step commits. What `keep` allows
  // is left for the update's own pass to form. INVALID_ARGUMENT: the optimizer does not take a
  // gradient of rows, or no other (row_gradients.h).
  static absl::StatusOr<std::unique_ptr<PreparedStep>> Create(std::shared_ptr<const Layout> layout,
                                                              const v1::PrepareStep& request,
                                                              const Pushes& pushes,
                                                              const std::vector<OptionMap>& options,
                                                              Reduction::Keep keep);

  // One that was finished before, with its gradients and rows by local shard.
  static std::unique_ptr<PreparedStep> Restore(std::shared_ptr<const Layout> layout,
                                               std::vector<ShardGradient> gradients,
                                               std::vector<at::Tensor> rows);

  size_t num_blocks() const { return blocks_.size(); }
  // Elements to be read: what the work costs.
  int64_t elements() const { return elements_; }
  void RunBlock(size_t index);
  // Fills in the answer's facts (finite, norm, digest, computed_on). INTERNAL: the arithmetic
  // failed.
  absl::Status Finish(v1::Prepared* answer);

  // By local shard: the gradient, undefined where the parameter is not stepped. After Finish.
  const std::vector<ShardGradient>& gradients() const { return gradients_; }
  // By local shard: the rows that the gradient consists of, undefined where it is whole. As
  // LocalOptimizer::BeginStep takes them.
  const std::vector<at::Tensor>& rows() const { return rows_; }

 private:
  PreparedStep() = default;

  struct ShardReduction {
    size_t local = 0;
    std::variant<Reduction, RowReduction> reduction;
  };

  absl::Status CheckForms(const std::vector<OptionMap>& options) const;
  // Begins the reduction of one shard.
  absl::Status AddWhole(size_t local, const Pushes& pushes, const v1::PrepareStep& request,
                        const ReductionOptions& options);
  absl::Status AddRows(size_t local, const Pushes& pushes, const v1::PrepareStep& request,
                       const ReductionOptions& options);
  void AddReduction(size_t local, std::variant<Reduction, RowReduction> reduction);

  std::shared_ptr<const Layout> layout_;
  Reduction::Keep keep_ = Reduction::Keep::kTensor;
  Pushes pushes_;
  std::string touched_;
  std::string by_rows_;  // of these, those whose gradient consists of rows
  std::optional<uint64_t> computed_on_;
  std::vector<v1::DType> group_dtypes_;
  std::vector<ShardReduction> reductions_;
  std::vector<std::pair<size_t, size_t>> blocks_;  // reduction, its block
  int64_t elements_ = 0;
  std::vector<ShardGradient> gradients_;
  std::vector<at::Tensor> rows_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_PREPARED_STEP_H_
