#include "shardstep/tests/bench/update_reference.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/measure.h"

namespace shardstep {

absl::StatusOr<double> UpdateSeconds(const OptimizerOptions& optimizer, int tensors,
                                     int64_t elements, int threads, int repeats) {
  at::set_num_threads(1);
  SHARDSTEP_ASSIGN_OR_RETURN(const OptionMap options,
                             CompleteOptions(optimizer.kind, optimizer.given));
  std::vector<std::string> names;
  std::vector<ShardValue> shards;
  std::vector<ShardGradient> gradients;
  for (int i = 0; i < tensors; ++i) {
    names.push_back(absl::StrCat("p", i));
    shards.push_back({static_cast<size_t>(i), at::full({elements}, 0.5F)});
    gradients.push_back(at::full({elements}, 1.0F));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(
      LocalOptimizer local,
      LocalOptimizer::Create(optimizer.kind, {{options, names}}, names, std::move(shards)));
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    absl::Status status = local.BeginStep(gradients, std::nullopt, {});
    SHARDSTEP_RETURN_IF_ERROR(status);
    seconds.push_back(SecondsOf([&] {
      std::atomic<size_t> next = 0;
      const auto work = [&] {
        at::set_num_threads(1);
        for (size_t block = next++; block < local.num_blocks(); block = next++) {
          local.RunBlock(block);
        }
      };
      std::vector<std::thread> others;
      for (int t = 1; t < threads; ++t) others.emplace_back(work);
      work();
      for (std::thread& other : others) other.join();
    }));
    SHARDSTEP_RETURN_IF_ERROR(local.FinishStep());
  }
  return Median(std::move(seconds));
}

}  // namespace shardstep
