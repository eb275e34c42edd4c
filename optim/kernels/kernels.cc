#include "shardstep/optim/kernels/kernels.h"

#include "shardstep/optim/kernels/passes.h"

namespace shardstep {
namespace CPU_CAPABILITY {
namespace {

template <typename T, bool kDecays, Momentum kMomentum, bool kFirst>
void SgdPass(const SgdFactors<T>& factors, const SgdArrays<T>& arrays, int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const Vector<T> momentum(factors.momentum);
  const Vector<T> undamped(factors.undamped);
  const Vector<T> minus_lr(factors.minus_lr);
  const SgdArrays<T> at = arrays;
  ForEachVector<T>(0, length, [&](int64_t i, int64_t count) {
    Vector<T> direction = gradient_of(at.gradient + i, at.value_in + i, count);
    if constexpr (kMomentum != Momentum::kNone) {
      Vector<T> buffer = direction;
      if constexpr (!kFirst) {
        buffer = at::vec::fmadd(direction, undamped,
                                Vector<T>::loadu(at.buffer_in + i, count) * momentum);
      }
      buffer.store(at.buffer_out + i, count);
      direction =
          kMomentum == Momentum::kNesterov ? at::vec::fmadd(buffer, momentum, direction) : buffer;
    }
    at::vec::fmadd(direction, minus_lr, Vector<T>::loadu(at.value_in + i, count))
        .store(at.value_out + i, count);
  });
}

// at::mul and add_ with alpha, at::sub, mul_ and at::add.
template <typename T, bool kDecays, bool kAverages>
void AsgdPass(const AsgdFactors<T>& factors, const AsgdArrays<T>& arrays, int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const Vector<T> value_decay(factors.value_decay);
  const Vector<T> minus_eta(factors.minus_eta);
  const Vector<T> weight(factors.weight);
  const AsgdArrays<T> at = arrays;
  ForEachVector<T>(0, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> value =
        at::vec::fmadd(gradient, minus_eta, Vector<T>::loadu(at.value_in + i, count) * value_decay);
    value.store(at.value_out + i, count);
    Vector<T> average = value;
    if constexpr (kAverages) {
      const Vector<T> old = Vector<T>::loadu(at.average_in + i, count);
      average = old + (value - old) * weight;
    }
    average.store(at.average_out + i, count);
  });
}

// at::lerp, at::mul and addcmul_, at::maximum.
template <typename T, bool kDecays, bool kAmsgrad>
void AdamMomentsPass(const AdamFactors<T>& factors, const AdamArrays<T>& arrays, int64_t begin,
                     int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const bool from_gradient = factors.from_gradient;
  const Vector<T> weight(factors.exp_avg_weight);
  const Vector<T> beta2(factors.beta2);
  const Vector<T> one_minus_beta2(factors.one_minus_beta2);
  const AdamArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> old_average = Vector<T>::loadu(at.exp_avg_in + i, count);
    at::vec::fmadd(weight, gradient - old_average, from_gradient ? gradient : old_average)
        .store(at.exp_avg_out + i, count);
    Vector<T> square = at::vec::fmadd(one_minus_beta2 * gradient, gradient,
                                      Vector<T>::loadu(at.exp_avg_sq_in + i, count) * beta2);
    square.store(at.exp_avg_sq_out + i, count);
    if constexpr (kAmsgrad) {
      square = at::vec::maximum(Vector<T>::loadu(at.maximum_in + i, count), square);
      square.store(at.maximum_out + i, count);
    }
    square.store(at.roots + (i - begin), count);
  });
}

// at::mul, div_ and add_ of a number, at::addcdiv.
template <typename T, bool kDecaysValue>
void AdamValuePass(const AdamFactors<T>& factors, const AdamArrays<T>& arrays, int64_t begin,
                   int64_t length) {
  const Vector<T> value_decay(factors.value_decay);
  const Vector<T> correction(factors.bias_correction2_sqrt);
  const Vector<T> eps(factors.eps);
  const Vector<T> minus_step_size(factors.minus_step_size);
  const AdamArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    Vector<T> value = Vector<T>::loadu(at.value_in + i, count);
    if constexpr (kDecaysValue) value = value * value_decay;
    const Vector<T> denominator =
        Vector<T>::loadu(at.roots + (i - begin), count) / correction + eps;
    const Vector<T> average = Vector<T>::loadu(at.exp_avg_out + i, count);
    // Divisions leave the memory idle.
    Prefetch(at.gradient + length + i);
    Prefetch(at.value_in + length + i);
    Prefetch(at.exp_avg_in + length + i);
    Prefetch(at.exp_avg_sq_in + length + i);
    (value + minus_step_size * average / denominator).store(at.value_out + i, count);
  });
}

// at::addcmul.
template <typename T, bool kDecays>
void AdagradSumPass(const AdagradFactors<T>& factors, const AdagradArrays<T>& arrays, int64_t begin,
                    int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const AdagradArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> sum =
        at::vec::fmadd(gradient, gradient, Vector<T>::loadu(at.sum_in + i, count));
    sum.store(at.sum_out + i, count);
    sum.store(at.roots + (i - begin), count);
  });
}

// add_ of a number, at::addcdiv.
template <typename T, bool kDecays>
void AdagradValuePass(const AdagradFactors<T>& factors, const AdagradArrays<T>& arrays,
                      int64_t begin, int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const Vector<T> eps(factors.eps);
  const Vector<T> minus_rate(factors.minus_rate);
  const AdagradArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> denominator = Vector<T>::loadu(at.roots + (i - begin), count) + eps;
    const Vector<T> value = Vector<T>::loadu(at.value_in + i, count);
    Prefetch(at.gradient + length + i);
    Prefetch(at.value_in + length + i);
    Prefetch(at.sum_in + length + i);
    (value + minus_rate * gradient / denominator).store(at.value_out + i, count);
  });
}

template <typename T, bool kDecays>
void SgdOf(const SgdFactors<T>& factors, const SgdArrays<T>& arrays, int64_t length) {
  const bool first = arrays.buffer_in == nullptr;
  auto* pass = SgdPass<T, kDecays, Momentum::kNone, true>;
  if (factors.momentum_kind == Momentum::kHeavyBall) {
    pass = first ? SgdPass<T, kDecays, Momentum::kHeavyBall, true>
                 : SgdPass<T, kDecays, Momentum::kHeavyBall, false>;
  } else if (factors.momentum_kind == Momentum::kNesterov) {
    pass = first ? SgdPass<T, kDecays, Momentum::kNesterov, true>
                 : SgdPass<T, kDecays, Momentum::kNesterov, false>;
  }
  pass(factors, arrays, length);
}

template <typename T>
void Sgd(const SgdFactors<T>& factors, const SgdArrays<T>& arrays, int64_t length) {
  const auto pass = factors.gradient.decays ? SgdOf<T, true> : SgdOf<T, false>;
  pass(factors, arrays, length);
}

template <typename T>
void Asgd(const AsgdFactors<T>& factors, const AsgdArrays<T>& arrays, int64_t length) {
  const auto pass = factors.gradient.decays
                        ? (factors.averages ? AsgdPass<T, true, true> : AsgdPass<T, true, false>)
                        : (factors.averages ? AsgdPass<T, false, true> : AsgdPass<T, false, false>);
  pass(factors, arrays, length);
}

template <typename T>
void AdamMoments(const AdamFactors<T>& factors, const AdamArrays<T>& arrays, int64_t begin,
                 int64_t length) {
  const auto pass =
      factors.gradient.decays
          ? (factors.amsgrad ? AdamMomentsPass<T, true, true> : AdamMomentsPass<T, true, false>)
          : (factors.amsgrad ? AdamMomentsPass<T, false, true> : AdamMomentsPass<T, false, false>);
  pass(factors, arrays, begin, length);
}

template <typename T>
void AdamValue(const AdamFactors<T>& factors, const AdamArrays<T>& arrays, int64_t begin,
               int64_t length) {
  const auto pass = factors.decays_value ? AdamValuePass<T, true> : AdamValuePass<T, false>;
  pass(factors, arrays, begin, length);
}

template <typename T>
void AdagradSum(const AdagradFactors<T>& factors, const AdagradArrays<T>& arrays, int64_t begin,
                int64_t length) {
  const auto pass = factors.gradient.decays ? AdagradSumPass<T, true> : AdagradSumPass<T, false>;
  pass(factors, arrays, begin, length);
}

template <typename T>
void AdagradValue(const AdagradFactors<T>& factors, const AdagradArrays<T>& arrays, int64_t begin,
                  int64_t length) {
  const auto pass =
      factors.gradient.decays ? AdagradValuePass<T, true> : AdagradValuePass<T, false>;
  pass(factors, arrays, begin, length);
}

}  // namespace

const Kernels<float> kFloatKernels = {Sgd<float>,       Asgd<float>,       AdamMoments<float>,
                                      AdamValue<float>, AdagradSum<float>, AdagradValue<float>};
const Kernels<double> kDoubleKernels = {Sgd<double>,         Asgd<double>,
                                        AdamMoments<double>, AdamValue<double>,
                                        AdagradSum<double>,  AdagradValue<double>};

}  // namespace CPU_CAPABILITY
}  // namespace shardstep
