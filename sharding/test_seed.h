// The seed of a test that draws its cases at random.
#ifndef SHARDSTEP_SHARDING_TEST_SEED_H_
#define SHARDSTEP_SHARDING_TEST_SEED_H_

#include <gtest/gtest.h>

#include <random>

namespace shardstep {

// A seed that differs from run to run, or the one that the environment's GTEST_RANDOM_SEED names. A
// test shows it where it fails: SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed)).
inline int TestSeed() {
  const int wanted = GTEST_FLAG_GET(random_seed);
  return wanted != 0 ? wanted : static_cast<int>(std::random_device()() % 99'999) + 1;
}

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_TEST_SEED_H_
