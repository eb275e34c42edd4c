#include "shardstep/optim/numeric_fingerprint.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <thread>

#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

TEST(NumericFingerprintTest, IsStableWithinAProcess) {
  ASSERT_OK_AND_ASSIGN(const uint32_t first, NumericFingerprint());
  ASSERT_OK_AND_ASSIGN(const uint32_t second, NumericFingerprint());
  EXPECT_EQ(first, second);
  absl::StatusOr<uint32_t> elsewhere;
  std::thread([&] { elsewhere = NumericFingerprint(); }).join();
  EXPECT_THAT(elsewhere, IsOkAndHolds(first));
}

TEST(UsePortableNumericsTest, OverridesWhatWasSetOutside) {
  setenv("MKL_CBWR", "AVX2", /*overwrite=*/1);
  UsePortableNumerics();
  EXPECT_STREQ(getenv("MKL_CBWR"), "COMPATIBLE");
  EXPECT_NE(IeeeSqrtIfUsed<double>(), nullptr);
}

}  // namespace
}  // namespace shardstep
