#include "shardstep/optim/numeric_fingerprint.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/lerp.h>
#include <isa-l/crc.h>
#include <stdlib.h>

#include "shardstep/optim/aten_status.h"
#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/square_root.h"

namespace shardstep {
namespace {

// Odd, so that the ends which do not fill a vector are probed too. MKL's AVX-512 branch differs
// from IEEE in 0.66 % of the float32 square roots: 27 of these.
constexpr int64_t kProbeElements = 4099;

// Element i of probe `seed`, in [2^-11, 32): the fraction and the power of two come from the upper
// bits of a linear congruential generator (Knuth's MMIX).
at::Tensor Probe(uint64_t seed, at::ScalarType dtype) {
  at::Tensor probe = at::empty({kProbeElements}, at::TensorOptions().dtype(at::kDouble));
  double* values = probe.mutable_data_ptr<double>();
  uint64_t state = seed;
  for (int64_t i = 0; i < kProbeElements; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double fraction = 1 + static_cast<double>(state >> 41) / (uint64_t{1} << 23);
    const int exponent = static_cast<int>(i % 16) - 11;
    values[i] = exponent < 0 ? fraction / (1 << -exponent) : fraction * (1 << exponent);
  }
  return probe.to(dtype);
}

uint32_t Extend(uint32_t crc, const at::Tensor& values) {
  // ISA-L's pointer is not const, though it only reads.
  auto* bytes = static_cast<unsigned char*>(const_cast<void*>(values.const_data_ptr()));
  return crc32_iscsi(bytes, static_cast<int>(values.nbytes()), crc);
}

uint32_t Fingerprint(uint32_t crc, at::ScalarType dtype) {
  const at::Tensor a = Probe(1, dtype), b = Probe(2, dtype), c = Probe(3, dtype);
  crc = Extend(crc, Sqrt(a));
  crc = Extend(crc, at::div(a, b));
  crc = Extend(crc, at::lerp(a, b, 0.1));
  crc = Extend(crc, at::addcmul(a, b, c, -0.001));
  return Extend(crc, at::addcdiv(a, b, c, -0.001));
}

}  // namespace

absl::StatusOr<uint32_t> NumericFingerprint() {
  uint32_t crc = 0xFFFFFFFF;
  const absl::Status status = CatchAten([&crc] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    crc = Fingerprint(Fingerprint(crc, at::kFloat), at::kDouble);
  });
  if (!status.ok()) return status;
  return ~crc;
}

void UsePortableNumerics() {
  setenv("MKL_CBWR", "COMPATIBLE", /*overwrite=*/1);
  UseIeeeRoots();
}

}  // namespace shardstep
