// Whole checkpoints for tests: a model with known bytes, written as a fleet writes it.
#ifndef SHARDSTEP_CHECKPOINT_SMALL_CHECKPOINT_H_
#define SHARDSTEP_CHECKPOINT_SMALL_CHECKPOINT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/manifest.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/region.h"

namespace shardstep {

// Parameters, AdamW's states of each, and one state per row and one per column, every byte drawn at
// random.
struct SmallModel {
  std::vector<ParameterShape> parameters;
  int servers = 0;
  Plan plan;
  std::map<std::string, std::string> tensors;  // whole, by key
};

// Aborts if no plan can be made.
SmallModel MakeSmallModel(std::vector<ParameterShape> parameters, int servers, int seed);

// Two parameters with different specs, on two servers, in three files.
SmallModel TwoServerModel();

// The part of a whole tensor, in row-major order.
std::string SliceOf(absl::string_view tensor, const Shape& sizes, int64_t item_size,
                    const Region& part);

// For checkpoint `id` of "digits" at version 7 of lineage 5, ordinal 1, with two trainers; without
// files.
Manifest MakeManifest(const SmallModel& model, const std::string& id);

// Begins, writes every file and finishes, under the manifest's optimizer and id.
absl::Status WriteSmallCheckpoint(FileSystem* files, const std::string& root,
                                  const SmallModel& model, Manifest manifest);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_SMALL_CHECKPOINT_H_
