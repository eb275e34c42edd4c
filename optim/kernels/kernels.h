// Steps of torch.optim in one pass over memory, with the roundings of ATen's operators, written on
// at::vec for one kind of CPU. The sources are compiled once per kind, so this header is plain
// data: whatever is inline here or in what it includes could end up compiled for a CPU that is not
// there.
//
// Arrays are of the same length, each is written only if it is an `out`, and an `in` is its `out`
// or apart from it. The functions hold nothing and are safe from any thread.
//
// MKL decides the bits of at::sqrt. Where a step needs it, the step is two functions, and their
// caller takes the root of `roots` in between (see roots.h). The second one also asks the memory
// for the `length` elements behind its arrays, which are their caller's next.
#ifndef SHARDSTEP_OPTIM_KERNELS_KERNELS_H_
#define SHARDSTEP_OPTIM_KERNELS_KERNELS_H_

#include <cstdint>

namespace shardstep {

// What becomes of the gradient first: gradient * coefficient (negative if the group maximizes), and
// if it decays, plus weight_decay * value.
template <typename T>
struct GradientFactors {
  T coefficient;
  bool decays;
  T weight_decay;
};

enum class Momentum { kNone, kHeavyBall, kNesterov };

template <typename T>
struct SgdFactors {
  GradientFactors<T> gradient;
  Momentum momentum_kind;
  T momentum;
  T undamped;
  T minus_lr;
};

template <typename T>
struct SgdArrays {
  const T* gradient;
  const T* value_in;
  T* value_out;
  const T* buffer_in;  // nullptr in the first step, too
  T* buffer_out;       // nullptr with kNone
};

template <typename T>
struct AdamFactors {
  GradientFactors<T> gradient;
  bool amsgrad;
  bool decays_value;
  T value_decay;
  // lerp: exp_avg_base + exp_avg_weight * (gradient - exp_avg), where the base is exp_avg or, for
  // weights of 0.5 and more, the gradient.
  bool from_gradient;
  T exp_avg_weight;
  T beta2;
  T one_minus_beta2;
  T bias_correction2_sqrt;
  T eps;
  T minus_step_size;
};

template <typename T>
struct AdamArrays {
  const T* gradient;
  const T* value_in;
  T* value_out;
  const T* exp_avg_in;
  T* exp_avg_out;
  const T* exp_avg_sq_in;
  T* exp_avg_sq_out;
  const T* maximum_in;  // nullptr without amsgrad, and so is maximum_out
  T* maximum_out;
  T* roots;
};

template <typename T>
struct AdagradFactors {
  GradientFactors<T> gradient;
  T eps;
  T minus_rate;
};

template <typename T>
struct AdagradArrays {
  const T* gradient;
  const T* value_in;
  T* value_out;
  const T* sum_in;
  T* sum_out;
  T* roots;
};

template <typename T>
struct AsgdFactors {
  GradientFactors<T> gradient;
  bool averages;
  T value_decay;
  T minus_eta;
  T weight;
};

template <typename T>
struct AsgdArrays {
  const T* gradient;
  const T* value_in;
  T* value_out;
  const T* average_in;
  T* average_out;
};

template <typename T>
struct Kernels {
  void (*sgd)(const SgdFactors<T>&, const SgdArrays<T>&, int64_t length);
  void (*asgd)(const AsgdFactors<T>&, const AsgdArrays<T>&, int64_t length);
  // Moments, and into `roots` what the roots are to be taken of; then the value.
  void (*adam_moments)(const AdamFactors<T>&, const AdamArrays<T>&, int64_t begin, int64_t length);
  void (*adam_value)(const AdamFactors<T>&, const AdamArrays<T>&, int64_t begin, int64_t length);
  void (*adagrad_sum)(const AdagradFactors<T>&, const AdagradArrays<T>&, int64_t begin,
                      int64_t length);
  void (*adagrad_value)(const AdagradFactors<T>&, const AdagradArrays<T>&, int64_t begin,
                        int64_t length);
};

namespace AVX2 {
extern const Kernels<float> kFloatKernels;
extern const Kernels<double> kDoubleKernels;

// Square roots in place: IEEE's, and those of two steps of Goldschmidt's iteration from the CPU's
// estimate of 1/sqrt, which is what MKL takes on some CPUs.
void SqrtIeee(float* values, int64_t length);
void SqrtIeeeDouble(double* values, int64_t length);
void SqrtGoldschmidt(float* values, int64_t length);
}  // namespace AVX2

namespace AVX512 {
extern const Kernels<float> kFloatKernels;
extern const Kernels<double> kDoubleKernels;
}  // namespace AVX512

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_KERNELS_KERNELS_H_
