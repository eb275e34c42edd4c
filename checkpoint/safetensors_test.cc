#include "shardstep/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

std::string Length(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i));
  return bytes;
}

std::string Header(const std::string& json) { return Length(json.size()) + json; }

// A file of this header and so many bytes of data.
absl::StatusOr<SafetensorsHeader> Parse(const std::string& json, int64_t data_bytes) {
  const std::string header = Header(json);
  return ParseSafetensorsHeader(header, static_cast<int64_t>(header.size()) + data_bytes);
}

auto Refused(const std::string& what) {
  return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what));
}

std::string Entry(const std::string& name, const std::string& shape, int64_t begin, int64_t end) {
  return absl::StrCat("\"", name, R"(":{"dtype":"F32","shape":)", shape, R"(,"data_offsets":[)",
                      begin, ",", end, "]}");
}

TEST(SafetensorsTest, LaysOutGoldenBytes) {
  std::vector<SafetensorsEntry> entries = {
      {"a", DType::kFloat32, {2, 3}}, {"b\"", DType::kInt64, {}}, {"c", DType::kBFloat16, {0, 4}}};
  ASSERT_OK_AND_ASSIGN(const std::string header,
                       LayoutSafetensors(absl::MakeSpan(entries), {{"format", "pt"}}));
  const std::string json = R"({"__metadata__":{"format":"pt"},)"
                           R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                           R"("b\"":{"dtype":"I64","shape":[],"data_offsets":[24,32]},)"
                           R"("c":{"dtype":"BF16","shape":[0,4],"data_offsets":[32,32]}}      )";
  EXPECT_EQ(header, Header(json));
  EXPECT_EQ(header.size() % 8, 0u);
  EXPECT_EQ(entries[1].begin, 24);
  EXPECT_EQ(entries[1].end, 32);

  ASSERT_OK_AND_ASSIGN(const SafetensorsHeader parsed,
                       ParseSafetensorsHeader(header, static_cast<int64_t>(header.size()) + 32));
  EXPECT_EQ(parsed.data_begin, static_cast<int64_t>(header.size()));
  EXPECT_EQ(parsed.metadata.at("format"), "pt");
  ASSERT_EQ(parsed.entries.size(), 3u);
  EXPECT_EQ(parsed.entries[0].sizes, Shape({2, 3}));
  EXPECT_EQ(parsed.Find("b\"")->dtype, DType::kInt64);
  EXPECT_EQ(parsed.Find("d"), nullptr);
}

TEST(SafetensorsTest, EveryDtypeComesBack) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16,
                            DType::kInt8, DType::kUInt8, DType::kInt16, DType::kInt32,
                            DType::kInt64, DType::kBool, DType::kComplex64}) {
    std::vector<SafetensorsEntry> entries = {{"a", dtype, {3}}};
    ASSERT_OK_AND_ASSIGN(const std::string header, LayoutSafetensors(absl::MakeSpan(entries), {}));
    ASSERT_OK_AND_ASSIGN(const SafetensorsHeader parsed,
                         ParseSafetensorsHeader(header, header.size() + 3 * ItemSize(dtype)));
    EXPECT_EQ(parsed.entries[0].dtype, dtype);
  }
}

TEST(SafetensorsTest, LayoutRefusesWhatTheFormatLacks) {
  const auto layout = [](std::vector<SafetensorsEntry> entries) {
    return LayoutSafetensors(absl::MakeSpan(entries), {});
  };
  EXPECT_THAT(layout({{"a", DType::kFloat32, {}}, {"a", DType::kFloat32, {}}}),
              Refused("tensor \"a\": the name is taken"));
  EXPECT_THAT(layout({{"__metadata__", DType::kFloat32, {}}}), Refused("the name is taken"));
  EXPECT_THAT(layout({{"a", DType::kComplex128, {}}}), Refused("complex128"));
  EXPECT_THAT(layout({{"a", DType::kFloat32, {-1}}}), Refused("negative"));
  EXPECT_THAT(layout({{"\xff", DType::kFloat32, {}}}), Refused("UTF-8"));
  EXPECT_THAT(layout({{"a", DType::kUInt8, {INT64_MAX}}}), Refused("2^63"));
  EXPECT_THAT(layout({{"a", DType::kUInt8, {INT64_MAX}}, {"b", DType::kUInt8, {1}}}),
              Refused("2^63"));
}

TEST(SafetensorsTest, TakesAnyOrderOfMembersAndPadding) {
  ASSERT_OK_AND_ASSIGN(
      const SafetensorsHeader parsed,
      Parse("{" + Entry("b", "[1]", 4, 8) + "," + Entry("a", "[1,1]", 0, 4) + "}   ", 8));
  EXPECT_EQ(parsed.entries[0].name, "a");
  EXPECT_EQ(parsed.entries[1].name, "b");
  EXPECT_OK(Parse("{}", 0));
}

TEST(SafetensorsTest, RefusesLengthsThatDoNotFit) {
  for (const uint64_t length : {uint64_t{1} << 63, UINT64_MAX, uint64_t{100'000'001}}) {
    EXPECT_THAT(ParseSafetensorsLength(Length(length), INT64_MAX), Refused("100000000"));
  }
  EXPECT_THAT(ParseSafetensorsLength(Length(100'000'000), INT64_MAX), IsOkAndHolds(100'000'000));
  EXPECT_THAT(ParseSafetensorsLength(Length(3), 10), Refused("expected at most 2"));
  EXPECT_THAT(ParseSafetensorsLength(Length(2), 10), IsOkAndHolds(2));
  EXPECT_THAT(ParseSafetensorsLength("1234567", 7), Refused("7 bytes"));
  EXPECT_THAT(ParseSafetensorsHeader(Length(0), 8), Refused("byte 8 is not '{'"));
}

TEST(SafetensorsTest, RefusesPlacesThatDoNotFillTheFile) {
  const std::string a = Entry("a", "[2]", 0, 8);
  EXPECT_OK(Parse("{" + a + "}", 8));
  EXPECT_THAT(Parse("{" + a + "}", 7), Refused("the tensors end at 8, the file has 7"));
  EXPECT_THAT(Parse("{" + a + "}", 9), Refused("the tensors end at 8, the file has 9"));
  EXPECT_THAT(Parse("{" + a + "," + Entry("b", "[1]", 4, 8) + "}", 8), Refused("overlap"));
  EXPECT_THAT(Parse("{" + a + "," + Entry("b", "[2]", 0, 8) + "}", 8), Refused("overlap"));
  EXPECT_THAT(Parse("{" + a + "," + Entry("b", "[1]", 12, 16) + "}", 16), Refused("hole"));
  EXPECT_THAT(Parse("{" + Entry("a", "[2]", 4, 12) + "}", 12), Refused("hole"));
  EXPECT_THAT(Parse("{" + Entry("a", "[2]", 8, 0) + "}", 8), Refused("[8,0], expected 8 bytes"));
  EXPECT_THAT(Parse("{" + Entry("a", "[3]", 0, 8) + "}", 8), Refused("[0,8], expected 12 bytes"));
}

TEST(SafetensorsTest, RefusesEntriesThatAreNone) {
  EXPECT_THAT(Parse(R"({"a":{"dtype":"F4","shape":[],"data_offsets":[0,0]}})", 0),
              Refused("tensor \"a\": dtype \"F4\", expected one of F32, "));
  EXPECT_THAT(Parse("{" + Entry("a", "[-1]", 0, 4) + "}", 4), Refused("tensor \"a\": \"shape\""));
  EXPECT_THAT(Parse("{" + Entry("a", "[1.0]", 0, 4) + "}", 4), Refused("\"shape\" holds 1.0"));
  EXPECT_THAT(Parse("{" + Entry("a", "[1,1,1,1,1,1,1,1,1]", 0, 4) + "}", 4), Refused("\"shape\""));
  EXPECT_THAT(Parse("{" + Entry("a", "[4294967296,4294967296]", 0, 0) + "}", 0),
              Refused("64 bits"));
  EXPECT_THAT(Parse("{" + Entry("a", "[4611686018427387904]", 0, 0) + "}", 0), Refused("64 bits"));
  EXPECT_THAT(Parse("{" + Entry("a", "[18446744073709551615]", 0, 0) + "}", 0),
              Refused("\"shape\""));
  EXPECT_THAT(Parse("{" + Entry("a", "[1]", 0, 4) + "," + Entry("a", "[1]", 4, 8) + "}", 8),
              Refused("\"a\" stands twice"));
  EXPECT_THAT(Parse(R"({"a":1})", 0), Refused("not an object"));
  EXPECT_THAT(Parse(R"({"a":{"shape":[],"data_offsets":[0,4]}})", 4), Refused("\"dtype\""));
  EXPECT_THAT(Parse(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0]}})", 4),
              Refused("\"data_offsets\" is not a list of 2 numbers"));
  EXPECT_THAT(Parse(R"({"__metadata__":{"a":1}})", 0), Refused("\"a\" is not a string"));
  EXPECT_THAT(Parse(R"({"__metadata__":[]})", 0), Refused("not an object"));
  EXPECT_THAT(Parse("[]", 0), Refused("byte 8 is not '{'"));
  EXPECT_THAT(Parse(" {}", 0), Refused("byte 8 is not '{'"));
  EXPECT_THAT(Parse(R"({"a":)" + std::string(1000, '['), 0), Refused("nested more than 64"));
}

TEST(SafetensorsTest, ReadsAFileOfALyingLengthWithoutAllocatingIt) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.safetensors");
  ASSERT_OK(WriteWholeFile(PosixFileSystem(), path, Length(uint64_t{1} << 63) + "{}"));
  ASSERT_OK_AND_ASSIGN(const auto file, PosixFileSystem()->OpenFile(path));
  EXPECT_THAT(ReadSafetensorsHeader(*file), Refused(path));
  EXPECT_THAT(ReadSafetensorsHeader(*file), Refused("header of 9223372036854775808 bytes"));
}

}  // namespace
}  // namespace shardstep
