// From options in double to a kernel's factors. Pure functions, safe from any thread.
#ifndef SHARDSTEP_OPTIM_KERNELS_FACTORS_H_
#define SHARDSTEP_OPTIM_KERNELS_FACTORS_H_

#include <cmath>

#include "shardstep/optim/kernels/kernels.h"

namespace shardstep {

// CoupledGradient (torch_parts.h) for kernels, without a step's coefficient.
template <typename T>
GradientFactors<T> CoupledGradientFactors(bool maximize, double weight_decay) {
  return {static_cast<T>(maximize ? -1 : 1), weight_decay != 0, static_cast<T>(weight_decay)};
}

// The weight that at::lerp(state, gradient, weight) takes as a kernel has it: see AdamFactors.
template <typename T>
struct LerpWeight {
  explicit LerpWeight(double weight) {
    const T rounded = static_cast<T>(weight);
    from_gradient = !(std::abs(rounded) < T{0.5});
    factor = from_gradient ? rounded - T{1} : rounded;
  }
  bool from_gradient;
  T factor;
};

// GradientFactors with a step's coefficient. A negation is exact, so that the sign may stand in the
// factor.
template <typename T>
GradientFactors<T> Scaled(GradientFactors<T> factors, double coefficient) {
  factors.coefficient *= static_cast<T>(coefficient);
  return factors;
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_KERNELS_FACTORS_H_
