#include "shardstep/examples/digits/parameter_file.h"

#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

ParameterFile Example() {
  ParameterFile file;
  file.version = 660;
  file.parameters.push_back({"fc1.weight", {2, 3}, {1, -2.5f, 3, 4, 5, 1e-40f}});
  file.parameters.push_back({"bias", {}, {std::numeric_limits<float>::quiet_NaN()}});
  file.parameters.push_back({"none", {0, 4}, {}});
  return file;
}

std::string PathOf(const std::string& name) { return ::testing::TempDir() + "/" + name; }

std::string BytesOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(ParameterFileTest, ReadsWhatItWrote) {
  const std::string path = PathOf("round_trip.safetensors");
  ASSERT_OK(Example().Write(path));
  ASSERT_OK_AND_ASSIGN(const ParameterFile read, ParameterFile::Read(path));
  EXPECT_EQ(read.version, 660u);
  EXPECT_OK(CompareBits(read, Example()));
}

TEST(ParameterFileTest, HasSafetensorsLayout) {
  const std::string path = PathOf("layout.safetensors");
  ASSERT_OK(Example().Write(path));
  const std::string bytes = BytesOf(path);
  const size_t length =
      static_cast<unsigned char>(bytes[0]) + 256u * static_cast<unsigned char>(bytes[1]);
  EXPECT_EQ(bytes.size(), 8 + length + 7 * sizeof(float));
  EXPECT_EQ(length % 8, 0u);
  EXPECT_THAT(bytes.substr(8, length),
              HasSubstr(R"("fc1.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]})"));
}

TEST(ParameterFileTest, RefusesEveryPartOfAFile) {
  const std::string path = PathOf("cut.safetensors");
  ASSERT_OK(Example().Write(path));
  const std::string bytes = BytesOf(path);
  for (size_t size = 0; size < bytes.size(); ++size) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes.substr(0, size);
    EXPECT_THAT(ParameterFile::Read(path),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cut.safetensors")))
        << size;
  }
}

TEST(ParameterFileTest, RefusesBytesBehindTheLastParameter) {
  const std::string path = PathOf("long.safetensors");
  ASSERT_OK(Example().Write(path));
  std::ofstream(path, std::ios::binary | std::ios::app) << "more";
  EXPECT_THAT(ParameterFile::Read(path), StatusIs(absl::StatusCode::kInvalidArgument,
                                                  HasSubstr("bytes behind the last parameter")));
}

TEST(ParameterFileTest, NamesAFileThatCannotBeOpened) {
  EXPECT_THAT(ParameterFile::Read("no/such"),
              StatusIs(absl::StatusCode::kNotFound, "\"no/such\": cannot be opened"));
  EXPECT_THAT(Example().Write("no/such"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"no/such\": cannot be written")));
}

TEST(CompareBitsTest, NamesTheFirstDifference) {
  ParameterFile other = Example();
  other.parameters[0].values[3] = std::nextafterf(4, 5);
  EXPECT_THAT(CompareBits(Example(), other),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("parameter \"fc1.weight\", element 3: 4 against 4")));
  other = Example();
  other.parameters[1].name = "b";
  EXPECT_THAT(CompareBits(Example(), other), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                      "parameter 1: \"bias\" [] against \"b\" []"));
  other.parameters.pop_back();
  EXPECT_THAT(CompareBits(Example(), other),
              StatusIs(absl::StatusCode::kFailedPrecondition, "3 parameters against 2"));
}

TEST(CompareBitsTest, ZeroAndMinusZeroDiffer) {
  ParameterFile zero;
  zero.parameters.push_back({"w", {1}, {0.0f}});
  ParameterFile minus = zero;
  minus.parameters[0].values[0] = -0.0f;
  EXPECT_THAT(CompareBits(zero, minus),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("element 0")));
}

}  // namespace
}  // namespace shardstep
