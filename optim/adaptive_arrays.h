// A block's memory as the adaptive kernels take it.
#ifndef SHARDSTEP_OPTIM_ADAPTIVE_ARRAYS_H_
#define SHARDSTEP_OPTIM_ADAPTIVE_ARRAYS_H_

#include "shardstep/optim/kernels/adaptive_kernels.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/kernels/kernels.h"
#include "shardstep/optim/optimizer.h"

namespace shardstep {

// Views of `block`, which has one state or two, without memory for roots.
template <typename T>
AdaptiveArrays<T> ArraysOf(const Block& block) {
  AdaptiveArrays<T> arrays = {};
  arrays.gradient = block.gradient.const_data_ptr<T>();
  arrays.value_in = block.value_in.const_data_ptr<T>();
  arrays.value_out = block.value_out.mutable_data_ptr<T>();
  arrays.first_in = block.states[0].in.const_data_ptr<T>();
  arrays.first_out = block.states[0].out.mutable_data_ptr<T>();
  if (block.states.size() < 2) return arrays;
  arrays.second_in = block.states[1].in.const_data_ptr<T>();
  arrays.second_out = block.states[1].out.mutable_data_ptr<T>();
  return arrays;
}

// The same for adam_moments, of a block whose states are exp_avg and exp_avg_sq, with `roots`.
template <typename T>
AdamArrays<T> MomentArraysOf(const AdaptiveArrays<T>& arrays) {
  return {arrays.gradient,  arrays.value_in,   arrays.value_out, arrays.first_in, arrays.first_out,
          arrays.second_in, arrays.second_out, nullptr,          nullptr,         arrays.roots};
}

// What adam_moments looks at.
template <typename T>
AdamFactors<T> MomentFactors(const GradientFactors<T>& gradient, double beta1, double beta2) {
  const LerpWeight<T> weight(1 - beta1);
  AdamFactors<T> factors = {};
  factors.gradient = gradient;
  factors.from_gradient = weight.from_gradient;
  factors.exp_avg_weight = weight.factor;
  factors.beta2 = static_cast<T>(beta2);
  factors.one_minus_beta2 = static_cast<T>(1 - beta2);
  return factors;
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_ADAPTIVE_ARRAYS_H_
