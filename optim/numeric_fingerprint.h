// Whether two machines compute the same bits. ATen's results depend on the vector unit and on the
// branch that MKL takes on the CPU at hand: square roots differ in the last bit in up to a fifth of
// all elements. Servers whose fingerprints differ cannot share an optimizer.
#ifndef SHARDSTEP_OPTIM_NUMERIC_FINGERPRINT_H_
#define SHARDSTEP_OPTIM_NUMERIC_FINGERPRINT_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace shardstep {

// CRC32C of what sqrt, div, lerp, addcmul and addcdiv give in float32 and float64 for fixed inputs:
// equal on machines (and in processes) that step alike. Takes about a millisecond.
// RESOURCE_EXHAUSTED, INTERNAL: ATen failed.
absl::StatusOr<uint32_t> NumericFingerprint();

// Makes this process compute the same bits on every x86 CPU with AVX2 and FMA: IEEE's square roots
// instead of MKL's, and for what else is MKL's its branch for every CPU (MKL_CBWR=COMPATIBLE, over
// any value set outside). Only the first statement of main may call it: MKL reads the setting once,
// and no other thread may be running.
void UsePortableNumerics();

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_NUMERIC_FINGERPRINT_H_
