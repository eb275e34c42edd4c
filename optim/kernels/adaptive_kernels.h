// More steps of torch.optim in one pass over memory: RMSprop, Adadelta, Adamax, NAdam, RAdam and
// Rprop. All that kernels.h says of its own holds here.
#ifndef SHARDSTEP_OPTIM_KERNELS_ADAPTIVE_KERNELS_H_
#define SHARDSTEP_OPTIM_KERNELS_ADAPTIVE_KERNELS_H_

#include <cstdint>

#include "shardstep/optim/kernels/kernels.h"

namespace shardstep {

// What each has: the states as they stand in States().
template <typename T>
struct AdaptiveArrays {
  const T* gradient;
  const T* value_in;
  T* value_out;
  const T* first_in;
  T* first_out;
  const T* second_in;  // nullptr where there is no second state, and so is second_out
  T* second_out;
  T* roots;  // nullptr where there is no root to be taken
  T* second_roots;
};

template <typename T>
struct RmspropFactors {
  GradientFactors<T> gradient;
  T alpha;
  T one_minus_alpha;
  T eps;
  T momentum;  // of no use without a second state
  T minus_lr;
};

template <typename T>
struct AdadeltaFactors {
  GradientFactors<T> gradient;
  T rho;
  T one_minus_rho;
  T eps;
  T minus_lr;
};

template <typename T>
struct AdamaxFactors {
  GradientFactors<T> gradient;
  bool from_gradient;  // see AdamFactors
  T exp_avg_weight;
  T beta2;
  T eps;
  T minus_rate;
};

// NAdam and RAdam begin with adam_moments.
template <typename T>
struct NadamFactors {
  GradientFactors<T> gradient;
  bool decays_value;
  T value_decay;
  T bias_correction2;
  T eps;
  T of_gradient;
  T of_average;
};

template <typename T>
struct RadamFactors {
  bool decays_value;
  T value_decay;
  T bias_correction1;
  T rate;
  bool is_rectified;
  T eps;
  T correct2;
  T rectify;
};

template <typename T>
struct RpropFactors {
  GradientFactors<T> gradient;  // never decays
  T shrink;
  T grow;
  T smallest;
  T largest;
};

template <typename T>
struct AdaptiveKernels {
  // Square average, and into `roots` what the roots are to be taken of; then the value.
  void (*rmsprop_square)(const RmspropFactors<T>&, const AdaptiveArrays<T>&, int64_t begin,
                         int64_t length);
  void (*rmsprop_value)(const RmspropFactors<T>&, const AdaptiveArrays<T>&, int64_t begin,
                        int64_t length);
  // Square average, and what the roots are to be taken of: of it into `roots`, of acc_delta into
  // `second_roots`; then acc_delta and the value.
  void (*adadelta_square)(const AdadeltaFactors<T>&, const AdaptiveArrays<T>&, int64_t begin,
                          int64_t length);
  void (*adadelta_value)(const AdadeltaFactors<T>&, const AdaptiveArrays<T>&, int64_t begin,
                         int64_t length);
  void (*adamax)(const AdamaxFactors<T>&, const AdaptiveArrays<T>&, int64_t length);
  // What the roots are to be taken of, from what adam_moments put there; then the value.
  void (*nadam_roots)(const NadamFactors<T>&, T* roots, int64_t length);
  void (*nadam_value)(const NadamFactors<T>&, const AdaptiveArrays<T>&, int64_t begin,
                      int64_t length);
  void (*radam_value)(const RadamFactors<T>&, const AdaptiveArrays<T>&, int64_t begin,
                      int64_t length);
  void (*rprop)(const RpropFactors<T>&, const AdaptiveArrays<T>&, int64_t length);
};

namespace AVX2 {
extern const AdaptiveKernels<float> kFloatAdaptiveKernels;
extern const AdaptiveKernels<double> kDoubleAdaptiveKernels;
}  // namespace AVX2

namespace AVX512 {
extern const AdaptiveKernels<float> kFloatAdaptiveKernels;
extern const AdaptiveKernels<double> kDoubleAdaptiveKernels;
}  // namespace AVX512

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_KERNELS_ADAPTIVE_KERNELS_H_
