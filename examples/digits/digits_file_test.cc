#include "shardstep/examples/digits/digits_file.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

std::string WriteFile(const std::string& name, const std::string& bytes) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string Line(int pixel, int label) {
  std::string line;
  for (int64_t i = 0; i < kPixels; ++i) line += std::to_string(pixel) + ",";
  return line + std::to_string(label) + "\n";
}

TEST(DigitsFileTest, ReadsTheShippedDigits) {
  ASSERT_OK_AND_ASSIGN(const Digits digits, ReadDigits("examples/digits/data/digits.csv.gz"));
  EXPECT_EQ(digits.rows(), 1797);
  EXPECT_EQ(digits.pixels.size(), 1797u * kPixels);
  EXPECT_EQ(digits.labels[0], 0);
  EXPECT_EQ(digits.labels[1], 1);
  EXPECT_EQ(digits.pixels[2], 5.0f / 16);
  EXPECT_EQ(*std::max_element(digits.pixels.begin(), digits.pixels.end()), 1.0f);
  for (int64_t label = 0; label < kClasses; ++label) {
    EXPECT_GT(std::count(digits.labels.begin(), digits.labels.end(), label), 170) << label;
  }
}

TEST(DigitsFileTest, ReadsPlainText) {
  ASSERT_OK_AND_ASSIGN(const Digits digits,
                       ReadDigits(WriteFile("plain.csv", Line(16, 9) + Line(0, 3))));
  EXPECT_THAT(digits.labels, ::testing::ElementsAre(9, 3));
  EXPECT_EQ(digits.pixels.front(), 1.0f);
  EXPECT_EQ(digits.pixels.back(), 0.0f);
}

TEST(DigitsFileTest, NamesTheLineItCannotRead) {
  for (const std::string& line : {Line(17, 1), Line(-1, 1), Line(1, 10), Line(1, -1),
                                  std::string("1,2,3\n"), Line(1, 1).substr(2), "x" + Line(1, 1)}) {
    EXPECT_THAT(ReadDigits(WriteFile("bad.csv", Line(1, 1) + line)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("line 2: expected 64 integers from 0 to 16")))
        << line;
  }
}

TEST(DigitsFileTest, RefusesAnEmptyFile) {
  EXPECT_THAT(ReadDigits(WriteFile("empty.csv", "")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no rows")));
}

TEST(DigitsFileTest, RefusesAFileThatWasCutOff) {
  std::ifstream whole("examples/digits/data/digits.csv.gz", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(whole)),
                          std::istreambuf_iterator<char>());
  EXPECT_THAT(ReadDigits(WriteFile("short.csv.gz", bytes.substr(0, bytes.size() / 2))),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("short.csv.gz")));
}

TEST(DigitsFileTest, NamesAFileThatIsMissing) {
  EXPECT_THAT(ReadDigits("no/such.csv.gz"),
              StatusIs(absl::StatusCode::kNotFound, "\"no/such.csv.gz\": cannot be opened"));
}

}  // namespace
}  // namespace shardstep
