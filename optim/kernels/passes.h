// What the kernels' passes have in common. For sources that are compiled for one kind of CPU, and
// them alone.
#ifndef SHARDSTEP_OPTIM_KERNELS_PASSES_H_
#define SHARDSTEP_OPTIM_KERNELS_PASSES_H_

#include <ATen/cpu/vec/vec.h>

#include "shardstep/optim/kernels/kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 sees its own _mm512_undefined_ps() as a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace shardstep {
namespace CPU_CAPABILITY {

template <typename T>
using Vector = at::vec::Vectorized<T>;

// Calls body(index, count) for all that lies from `begin` on: a vector at a time, then an element
// at a time.
template <typename T, typename Body>
inline void ForEachVector(int64_t begin, int64_t length, const Body& body) {
  constexpr int64_t kWidth = Vector<T>::size();
  const int64_t end = begin + length;
  int64_t i = begin;
  for (; i + kWidth <= end; i += kWidth) body(i, kWidth);
  for (; i < end; ++i) body(i, 1);
}

// at::mul and at::neg, at::add with alpha.
template <typename T, bool kDecays>
class Gradient {
 public:
  explicit Gradient(const GradientFactors<T>& factors)
      : coefficient_(factors.coefficient), weight_decay_(factors.weight_decay) {}

  Vector<T> operator()(const T* gradient, const T* value, int64_t count) const {
    const Vector<T> scaled = Vector<T>::loadu(gradient, count) * coefficient_;
    if constexpr (!kDecays) return scaled;
    return at::vec::fmadd(Vector<T>::loadu(value, count), weight_decay_, scaled);
  }

 private:
  const Vector<T> coefficient_;
  const Vector<T> weight_decay_;
};

template <typename T>
inline void Prefetch(const T* array) {
  __builtin_prefetch(array);
}

}  // namespace CPU_CAPABILITY
}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_KERNELS_PASSES_H_
