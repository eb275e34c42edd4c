// TensorFrames: what a client sends to one server of the values of all parameters.
#ifndef SHARDSTEP_TESTS_SIMULATION_TENSOR_FRAMES_H_
#define SHARDSTEP_TESTS_SIMULATION_TENSOR_FRAMES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "shardstep/server/layout.h"
#include "shardstep/v1/frame.pb.h"

namespace shardstep {

struct TensorFrames {
  std::vector<std::string> frames;  // encoded
  v1::End end;
};

// `values`: of each parameter, whole; all have one dimension. Each shard goes in `pieces` frames.
TensorFrames MakeTensorFrames(const Layout& layout, const std::vector<std::vector<float>>& values,
                              int pieces);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_TENSOR_FRAMES_H_
