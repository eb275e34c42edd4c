// Reads the files that generate.py makes, and draws the same numbers as its draw(). For tests: bad
// files end the process.
#ifndef SHARDSTEP_TESTS_GOLDEN_GOLDEN_FILE_H_
#define SHARDSTEP_TESTS_GOLDEN_GOLDEN_FILE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/optim/options/param_group.h"

namespace shardstep {

struct GoldenParameter {
  std::string name;
  std::vector<int64_t> shape;
  std::set<int> absent_steps;       // no gradient
  std::set<int> zero_steps;         // a gradient of zeros
  std::vector<std::string> states;  // their names at the end, in PyTorch's order
  std::string dtype;                // "float32", "float64"; empty: the run's
};

// Options set in a group before a step.
struct GoldenChange {
  int step = 0;
  size_t group = 0;
  OptionMap options;
};

struct GoldenCase {
  std::string kind;
  OptionMap defaults;                    // the constructor's arguments
  std::vector<ParamGroup> groups;        // as given to the constructor
  std::vector<ParamGroup> param_groups;  // as PyTorch completed them
  std::vector<GoldenParameter> parameters;
  int steps = 0;
  std::set<int> kept;  // the steps after which there are tensors, 0 among them
  std::vector<GoldenChange> changes;
  int added_at = 0;  // the step before which the second group is added; 0: the constructor's
  // Of tensors with more than 4096 elements every sample-th one is kept, flat; 0: all.
  int64_t sample = 0;
  // By "<dtype>/<step>/<parameter>/<value or state name>".
  std::map<std::string, at::Tensor> tensors;
};

nlohmann::ordered_json ReadGoldenJson(const std::string& name);
GoldenCase ReadGoldenCase(const std::string& name);

// A float is a number, or {"float": text} ("nan", "inf").
OptionMap ToOptions(const nlohmann::ordered_json& json);

// `count` numbers in [-1, 1).
std::vector<double> Draw(uint64_t seed, int64_t count, at::ScalarType dtype);

// The gradient of parameter `index` at `step`, from 1 on; at step 0 its first value.
at::Tensor DrawGradient(int step, size_t index, const std::vector<int64_t>& shape,
                        at::ScalarType dtype);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_GOLDEN_GOLDEN_FILE_H_
