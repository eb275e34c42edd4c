#include "shardstep/server/interval_set.h"

#include <random>
#include <set>

#include "gtest/gtest.h"

namespace shardstep {
namespace {

TEST(IntervalSetTest, MergesWhatTouches) {
  IntervalSet set;
  EXPECT_TRUE(set.Add(0, 3));
  EXPECT_TRUE(set.Add(6, 9));
  EXPECT_EQ(set.intervals(), 2u);
  EXPECT_TRUE(set.Add(3, 6));
  EXPECT_EQ(set, IntervalSet::Full(9));
}

TEST(IntervalSetTest, RefusesOverlapAndStaysAsItWas) {
  IntervalSet set;
  ASSERT_TRUE(set.Add(10, 20));
  for (const auto& [begin, end] : {std::pair<int, int>{5, 11}, {19, 25}, {12, 13}, {0, 30}}) {
    EXPECT_FALSE(set.Add(begin, end)) << begin << " " << end;
  }
  EXPECT_EQ(set.size(), 10);
  EXPECT_TRUE(set.Add(15, 15));  // nothing is added
  EXPECT_EQ(set.size(), 10);
}

TEST(IntervalSetTest, AgreesWithASetOfNumbers) {
  constexpr unsigned kSeed = 20261124;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    IntervalSet set;
    std::set<int64_t> numbers;
    for (int i = 0; i < 60; ++i) {
      const int64_t begin = random() % 100;
      const int64_t end = begin + random() % 6;
      bool fresh = true;
      for (int64_t n = begin; n < end; ++n) fresh = fresh && numbers.count(n) == 0;
      ASSERT_EQ(set.Add(begin, end), fresh);
      for (int64_t n = begin; fresh && n < end; ++n) numbers.insert(n);
      ASSERT_EQ(set.size(), static_cast<int64_t>(numbers.size()));
    }
    std::set<int64_t> listed;
    size_t intervals = 0;
    int64_t before = -1;
    set.ForEach([&](int64_t begin, int64_t end) {
      EXPECT_GT(begin, before);  // ascending, and not touching
      before = end;
      ++intervals;
      for (int64_t n = begin; n < end; ++n) listed.insert(n);
    });
    ASSERT_EQ(set.intervals(), intervals);
    ASSERT_EQ(listed, numbers);
  }
}

}  // namespace
}  // namespace shardstep
