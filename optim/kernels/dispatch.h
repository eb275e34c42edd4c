// Which kernels this machine's CPU runs.
#ifndef SHARDSTEP_OPTIM_KERNELS_DISPATCH_H_
#define SHARDSTEP_OPTIM_KERNELS_DISPATCH_H_

#include "shardstep/optim/kernels/adaptive_kernels.h"
#include "shardstep/optim/kernels/kernels.h"

namespace shardstep {

// Those for the CPU capability by which ATen chooses its own (ATEN_CPU_CAPABILITY counts too), or
// nullptr where there are none: ATen's `default` rounds products before it adds. T is float or
// double. Safe from any thread.
template <typename T>
const Kernels<T>* FindKernels();
template <typename T>
const AdaptiveKernels<T>* FindAdaptiveKernels();

// Takes square roots in place.
template <typename T>
using SqrtFunction = void (*)(T* values, int64_t length);

// From now on this process takes IEEE's roots, which are the same on every CPU; at::sqrt's are
// MKL's, and depend on the CPU and on who made it. Before the first step or FindSqrt.
void UseIeeeRoots();

// IEEE's roots if this process takes them, else nullptr. T is float or double.
template <typename T>
SqrtFunction<T> IeeeSqrtIfUsed();

// The same or, without UseIeeeRoots, the function whose roots are at::sqrt's here to the last bit;
// nullptr if there is none, as for double. Looks once, which takes some hundredths of a second:
// over all mantissas in two binades, in which everything that the exponent does not merely scale
// happens, and over every exponent's ends. Safe from any thread. Passes ATen's exceptions (memory)
// on.
template <typename T>
SqrtFunction<T> FindSqrt();

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_KERNELS_DISPATCH_H_
