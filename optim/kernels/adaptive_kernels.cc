#include "shardstep/optim/kernels/adaptive_kernels.h"

#include "shardstep/optim/kernels/passes.h"

namespace shardstep {
namespace CPU_CAPABILITY {
namespace {

// at::mul and addcmul_.
template <typename T, bool kDecays>
void RmspropSquarePass(const RmspropFactors<T>& factors, const AdaptiveArrays<T>& arrays,
                       int64_t begin, int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const Vector<T> alpha(factors.alpha);
  const Vector<T> one_minus_alpha(factors.one_minus_alpha);
  const AdaptiveArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> square = at::vec::fmadd(one_minus_alpha * gradient, gradient,
                                            Vector<T>::loadu(at.first_in + i, count) * alpha);
    square.store(at.first_out + i, count);
    square.store(at.roots + (i - begin), count);
  });
}

// add_ of a number, at::addcdiv; with momentum at::mul, addcdiv_ and at::add with alpha.
template <typename T, bool kDecays, bool kMomentum>
void RmspropValuePass(const RmspropFactors<T>& factors, const AdaptiveArrays<T>& arrays,
                      int64_t begin, int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const Vector<T> eps(factors.eps);
  const Vector<T> momentum(factors.momentum);
  const Vector<T> minus_lr(factors.minus_lr);
  const AdaptiveArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> deviation = Vector<T>::loadu(at.roots + (i - begin), count) + eps;
    const Vector<T> value = Vector<T>::loadu(at.value_in + i, count);
    Prefetch(at.gradient + length + i);
    Prefetch(at.value_in + length + i);
    Prefetch(at.first_in + length + i);
    if constexpr (kMomentum) {
      const Vector<T> buffer =
          Vector<T>::loadu(at.second_in + i, count) * momentum + gradient / deviation;
      buffer.store(at.second_out + i, count);
      at::vec::fmadd(buffer, minus_lr, value).store(at.value_out + i, count);
    } else {
      (value + minus_lr * gradient / deviation).store(at.value_out + i, count);
    }
  });
}

// at::mul and addcmul_, at::add of a number twice.
template <typename T, bool kDecays>
void AdadeltaSquarePass(const AdadeltaFactors<T>& factors, const AdaptiveArrays<T>& arrays,
                        int64_t begin, int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const Vector<T> rho(factors.rho);
  const Vector<T> one_minus_rho(factors.one_minus_rho);
  const Vector<T> eps(factors.eps);
  const AdaptiveArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> square = at::vec::fmadd(one_minus_rho * gradient, gradient,
                                            Vector<T>::loadu(at.first_in + i, count) * rho);
    square.store(at.first_out + i, count);
    (square + eps).store(at.roots + (i - begin), count);
    (Vector<T>::loadu(at.second_in + i, count) + eps).store(at.second_roots + (i - begin), count);
  });
}

// div_, mul_, at::mul and addcmul_, at::add with alpha.
template <typename T, bool kDecays>
void AdadeltaValuePass(const AdadeltaFactors<T>& factors, const AdaptiveArrays<T>& arrays,
                       int64_t begin, int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const Vector<T> rho(factors.rho);
  const Vector<T> one_minus_rho(factors.one_minus_rho);
  const Vector<T> minus_lr(factors.minus_lr);
  const AdaptiveArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> delta = Vector<T>::loadu(at.second_roots + (i - begin), count) /
                            Vector<T>::loadu(at.roots + (i - begin), count) * gradient;
    Prefetch(at.gradient + length + i);
    Prefetch(at.value_in + length + i);
    Prefetch(at.first_in + length + i);
    Prefetch(at.second_in + length + i);
    at::vec::fmadd(one_minus_rho * delta, delta, Vector<T>::loadu(at.second_in + i, count) * rho)
        .store(at.second_out + i, count);
    at::vec::fmadd(delta, minus_lr, Vector<T>::loadu(at.value_in + i, count))
        .store(at.value_out + i, count);
  });
}

// at::lerp, at::mul, at::abs, add_, at::maximum, at::addcdiv.
template <typename T, bool kDecays>
void AdamaxPass(const AdamaxFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const bool from_gradient = factors.from_gradient;
  const Vector<T> weight(factors.exp_avg_weight);
  const Vector<T> beta2(factors.beta2);
  const Vector<T> eps(factors.eps);
  const Vector<T> minus_rate(factors.minus_rate);
  const AdaptiveArrays<T> at = arrays;
  ForEachVector<T>(0, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> old_average = Vector<T>::loadu(at.first_in + i, count);
    const Vector<T> average =
        at::vec::fmadd(weight, gradient - old_average, from_gradient ? gradient : old_average);
    average.store(at.first_out + i, count);
    const Vector<T> norm =
        at::vec::maximum(Vector<T>::loadu(at.second_in + i, count) * beta2, gradient.abs() + eps);
    norm.store(at.second_out + i, count);
    (Vector<T>::loadu(at.value_in + i, count) + minus_rate * average / norm)
        .store(at.value_out + i, count);
  });
}

// at::div by a number.
template <typename T>
void NadamRoots(const NadamFactors<T>& factors, T* roots, int64_t length) {
  const Vector<T> correction(factors.bias_correction2);
  ForEachVector<T>(0, length, [&](int64_t i, int64_t count) {
    (Vector<T>::loadu(roots + i, count) / correction).store(roots + i, count);
  });
}

// at::mul, add_ of a number, at::addcdiv twice.
template <typename T, bool kDecays, bool kDecaysValue>
void NadamValuePass(const NadamFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t begin,
                    int64_t length) {
  const Gradient<T, kDecays> gradient_of(factors.gradient);
  const Vector<T> value_decay(factors.value_decay);
  const Vector<T> eps(factors.eps);
  const Vector<T> of_gradient(factors.of_gradient);
  const Vector<T> of_average(factors.of_average);
  const AdaptiveArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    const Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    Vector<T> value = Vector<T>::loadu(at.value_in + i, count);
    if constexpr (kDecaysValue) value = value * value_decay;
    const Vector<T> denominator = Vector<T>::loadu(at.roots + (i - begin), count) + eps;
    const Vector<T> average = Vector<T>::loadu(at.first_out + i, count);
    Prefetch(at.gradient + length + i);
    Prefetch(at.value_in + length + i);
    Prefetch(at.first_in + length + i);
    Prefetch(at.second_in + length + i);
    value = value + of_gradient * gradient / denominator;
    (value + of_average * average / denominator).store(at.value_out + i, count);
  });
}

// at::div and mul_ of numbers, add_, reciprocal_, at::mul, at::add with alpha.
template <typename T, bool kRectified, bool kDecaysValue>
void RadamValuePass(const RadamFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t begin,
                    int64_t length) {
  const Vector<T> value_decay(factors.value_decay);
  const Vector<T> correction(factors.bias_correction1);
  const Vector<T> rate(factors.rate);
  const Vector<T> eps(factors.eps);
  const Vector<T> correct2(factors.correct2);
  const Vector<T> rectify(factors.rectify);
  const AdaptiveArrays<T> at = arrays;
  ForEachVector<T>(begin, length, [&](int64_t i, int64_t count) {
    Vector<T> value = Vector<T>::loadu(at.value_in + i, count);
    if constexpr (kDecaysValue) value = value * value_decay;
    Vector<T> update = Vector<T>::loadu(at.first_out + i, count) / correction * rate;
    Prefetch(at.gradient + length + i);
    Prefetch(at.value_in + length + i);
    Prefetch(at.first_in + length + i);
    Prefetch(at.second_in + length + i);
    if constexpr (kRectified) {
      const Vector<T> deviation = Vector<T>::loadu(at.roots + (i - begin), count) + eps;
      update = update * (deviation.reciprocal() * correct2) * rectify;
    }
    (value - update).store(at.value_out + i, count);
  });
}

// at::mul and sign_, masked_fill_, at::mul and clamp_, masked_fill, at::sign and at::addcmul.
template <typename T>
void Rprop(const RpropFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t length) {
  const Gradient<T, false> gradient_of(factors.gradient);
  const Vector<T> zero(0), one(1), minus_one(-1);
  const Vector<T> shrink(factors.shrink), grow(factors.grow);
  const Vector<T> smallest(factors.smallest), largest(factors.largest);
  const AdaptiveArrays<T> at = arrays;
  ForEachVector<T>(0, length, [&](int64_t i, int64_t count) {
    Vector<T> gradient = gradient_of(at.gradient + i, at.value_in + i, count);
    const Vector<T> product = gradient * Vector<T>::loadu(at.first_in + i, count);
    const Vector<T> turned = product < zero;
    Vector<T> factor = Vector<T>::blendv(one, grow, product > zero);
    factor = Vector<T>::blendv(factor, shrink, turned);
    const Vector<T> step =
        at::vec::clamp(Vector<T>::loadu(at.second_in + i, count) * factor, smallest, largest);
    step.store(at.second_out + i, count);
    gradient = Vector<T>::blendv(gradient, zero, turned);
    Vector<T> sign = Vector<T>::blendv(zero, one, gradient > zero);
    sign = Vector<T>::blendv(sign, minus_one, gradient < zero);
    (Vector<T>::loadu(at.value_in + i, count) - sign * step).store(at.value_out + i, count);
    gradient.store(at.first_out + i, count);
  });
}

template <typename T>
void RmspropSquare(const RmspropFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t begin,
                   int64_t length) {
  const auto pass =
      factors.gradient.decays ? RmspropSquarePass<T, true> : RmspropSquarePass<T, false>;
  pass(factors, arrays, begin, length);
}

template <typename T>
void RmspropValue(const RmspropFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t begin,
                  int64_t length) {
  const bool momentum = arrays.second_out != nullptr;
  const auto pass =
      factors.gradient.decays
          ? (momentum ? RmspropValuePass<T, true, true> : RmspropValuePass<T, true, false>)
          : (momentum ? RmspropValuePass<T, false, true> : RmspropValuePass<T, false, false>);
  pass(factors, arrays, begin, length);
}

template <typename T>
void AdadeltaSquare(const AdadeltaFactors<T>& factors, const AdaptiveArrays<T>& arrays,
                    int64_t begin, int64_t length) {
  const auto pass =
      factors.gradient.decays ? AdadeltaSquarePass<T, true> : AdadeltaSquarePass<T, false>;
  pass(factors, arrays, begin, length);
}

template <typename T>
void AdadeltaValue(const AdadeltaFactors<T>& factors, const AdaptiveArrays<T>& arrays,
                   int64_t begin, int64_t length) {
  const auto pass =
      factors.gradient.decays ? AdadeltaValuePass<T, true> : AdadeltaValuePass<T, false>;
  pass(factors, arrays, begin, length);
}

template <typename T>
void Adamax(const AdamaxFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t length) {
  const auto pass = factors.gradient.decays ? AdamaxPass<T, true> : AdamaxPass<T, false>;
  pass(factors, arrays, length);
}

template <typename T>
void NadamValue(const NadamFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t begin,
                int64_t length) {
  // Either the gradient decays or the value.
  const auto pass = factors.gradient.decays ? NadamValuePass<T, true, false>
                    : factors.decays_value  ? NadamValuePass<T, false, true>
                                            : NadamValuePass<T, false, false>;
  pass(factors, arrays, begin, length);
}

template <typename T>
void RadamValue(const RadamFactors<T>& factors, const AdaptiveArrays<T>& arrays, int64_t begin,
                int64_t length) {
  const auto pass =
      factors.is_rectified
          ? (factors.decays_value ? RadamValuePass<T, true, true> : RadamValuePass<T, true, false>)
          : (factors.decays_value ? RadamValuePass<T, false, true>
                                  : RadamValuePass<T, false, false>);
  pass(factors, arrays, begin, length);
}

}  // namespace

const AdaptiveKernels<float> kFloatAdaptiveKernels = {
    RmspropSquare<float>, RmspropValue<float>, AdadeltaSquare<float>,
    AdadeltaValue<float>, Adamax<float>,       NadamRoots<float>,
    NadamValue<float>,    RadamValue<float>,   Rprop<float>};
const AdaptiveKernels<double> kDoubleAdaptiveKernels = {
    RmspropSquare<double>, RmspropValue<double>, AdadeltaSquare<double>,
    AdadeltaValue<double>, Adamax<double>,       NadamRoots<double>,
    NadamValue<double>,    RadamValue<double>,   Rprop<double>};

}  // namespace CPU_CAPABILITY
}  // namespace shardstep
