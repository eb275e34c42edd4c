// From options in double to a kernel's factors. Pure functions, safe from any thread.
#ifndef SHARDSTEP_OPTIM_KERNELS_FACTORS_H_
#define SHARDSTEP_OPTIM_KERNELS_FACTORS_H_

#include "shardstep/optim/kernels/kernels.h"

namespace shardstep {

// CoupledGradient (torch_parts.h) for kernels, without a step's coefficient.
template <typename T>
GradientFactors<T> CoupledGradientFactors(bool maximize, double weight_decay) {
  return {static_cast<T>(maximize ? -1 : 1), weight_decay != 0, static_cast<T>(weight_decay)};
}

// With it. A negation is exact, so that the sign may stand in the factor.
template <typename T>
GradientFactors<T> Scaled(GradientFactors<T> factors, double coefficient) {
  factors.coefficient *= static_cast<T>(coefficient);
  return factors;
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_KERNELS_FACTORS_H_
