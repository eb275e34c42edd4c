#include "shardstep/sharding/nearest_name.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/sharding/test_seed.h"

namespace shardstep {
namespace {

const std::vector<std::string>& Digits() {
  static const auto* const names =
      new std::vector<std::string>{"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"};
  return *names;
}

TEST(NearestNameTest, FindsTheNameThatWasMeant) {
  EXPECT_EQ(NearestName("fc1.wieght", Digits()), "fc1.weight");
  EXPECT_EQ(NearestName("fc2.wight", Digits()), "fc2.weight");
  EXPECT_EQ(NearestName("fc2.biass", Digits()), "fc2.bias");
  EXPECT_EQ(NearestName("fc3.bias", Digits()), "fc1.bias") << "of equals the first";
  EXPECT_EQ(NearestName("fc2.bias", Digits()), "fc2.bias");
  EXPECT_EQ(NearestName("xc2.bias", std::set<std::string>{"a", "fc2.bias"}), "fc2.bias");
}

TEST(NearestNameTest, FindsNothingWhereNothingIsNear) {
  EXPECT_EQ(NearestName("embedding", Digits()), "");
  EXPECT_EQ(NearestName("fc1.weight", std::vector<std::string>{}), "");
  EXPECT_EQ(NearestName("ab", std::vector<std::string>{"cb"}), "cb");
  EXPECT_EQ(NearestName("abc", std::vector<std::string>{"xyz"}), "") << "3 edits, at most 2";
  EXPECT_EQ(NearestName("abcdefghi", std::vector<std::string>{"abcdefxyz"}), "abcdefxyz");
  EXPECT_EQ(NearestName("abcdefghi", std::vector<std::string>{"abcdewxyz"}), "");
  EXPECT_EQ(NearestName("", std::vector<std::string>{"", "x"}), "x");
}

// The textbook's full table.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<size_t>> table(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        table[i][j] = i + j;
        continue;
      }
      table[i][j] = std::min({table[i - 1][j] + 1, table[i][j - 1] + 1,
                              table[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
    }
  }
  return table[a.size()][b.size()];
}

TEST(NearestNameTest, AgreesWithTheFullTable) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937 random(seed);
  const auto random_name = [&] {
    std::string name(random() % 14, ' ');
    for (char& c : name) c = 'a' + random() % 3;
    return name;
  };
  int found = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::string wanted = random_name();
    std::vector<std::string> candidates(random() % 6);
    std::generate(candidates.begin(), candidates.end(), random_name);
    std::string expected;
    size_t limit = std::max<size_t>(2, wanted.size() / 3) + 1;
    for (const std::string& candidate : candidates) {
      if (candidate.empty() || EditDistance(wanted, candidate) >= limit) continue;
      limit = EditDistance(wanted, candidate);
      expected = candidate;
    }
    found += expected.empty() ? 0 : 1;
    ASSERT_EQ(NearestName(wanted, candidates), expected) << "round " << round << ": " << wanted;
  }
  EXPECT_GT(found, 100);
}

TEST(NearestNameTest, GivesUpWhenTheBudgetIsSpent) {
  // Two names that share nothing but their length: the whole band must be computed for each.
  const std::string wanted = std::string(256, 'a') + std::string(256, 'b');
  const std::string far = std::string(100, 'x') + wanted.substr(200) + std::string(100, 'y');
  std::vector<std::string> candidates(100'000, far);
  candidates.push_back(wanted);
  EXPECT_EQ(NearestName(wanted, candidates), "") << "the budget reached the last candidate";
  EXPECT_EQ(NearestName(wanted, std::vector<std::string>{far, wanted}), wanted);
  const std::string endless(1025, 'a');
  EXPECT_EQ(NearestName(endless, std::vector<std::string>{endless}), "") << "no name is so long";
}

}  // namespace
}  // namespace shardstep
