#include "shardstep/checkpoint/shard_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/safetensors.h"
#include "shardstep/checkpoint/sha256.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/sharding/half_floats.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/crc32c.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void NoProgress(int64_t) {}

std::string Read(const std::string& path) {
  return ReadWholeFile(PosixFileSystem(), path, 1 << 30).value_or("unreadable");
}

TEST(NamesTest, KeysComeApartAgain) {
  EXPECT_EQ(ShardFileName(1, 3), "shard-00001-of-00003.safetensors");
  EXPECT_EQ(ParameterKey("fc1.weight"), "model.fc1.weight");
  EXPECT_EQ(StateKey("fc1.weight", "exp_avg"), "optim.state.fc1.weight.exp_avg");
  for (const std::string name : {"a", "fc1.weight", "optim.state.x", "model.x", ".", "a."}) {
    const std::string parameter_key = ParameterKey(name);
    ASSERT_OK_AND_ASSIGN(const TensorKey parameter, ParseKey(parameter_key));
    EXPECT_EQ(parameter.parameter, name);
    EXPECT_EQ(parameter.state, "");
    const std::string state_key = StateKey(name, "step");
    ASSERT_OK_AND_ASSIGN(const TensorKey state, ParseKey(state_key));
    EXPECT_EQ(state.parameter, name);
    EXPECT_EQ(state.state, "step");
  }
  for (const char* key : {"", "x", "model.", "optim.state.", "optim.state.a", "optim.state..step",
                          "optim.state.a."}) {
    EXPECT_THAT(ParseKey(key), StatusIs(absl::StatusCode::kInvalidArgument)) << key;
  }
}

TEST(PlanFilesTest, AFileHoldsOneShardOfAParameterAtMost) {
  const Placement zero = {0, "cpu"};
  const Placement one = {1, "cpu"};
  const std::vector<ParameterShape> parameters = {
      {"a", DType::kFloat32, {5}, Chunk{0, {one, zero, one, one, one, one}}},  // shards 0-5
      {"b", DType::kFloat32, {}, Whole{1}},                                    // 6
      {"c", DType::kFloat32, {0, 2}, Chunk{1, {zero, zero}}},                  // 7, 8
      {"d", DType::kFloat32, {2}, Chunk{0, {zero, one, one}}},                 // 9-11
  };
  ASSERT_OK_AND_ASSIGN(const Plan plan, MakePlan(parameters, 3));
  const std::vector<PlannedFile> files = PlanFiles(plan, 3);
  ASSERT_EQ(files.size(), 7u);
  const auto expect = [&](size_t file, int server, std::vector<size_t> shards,
                          std::vector<int> scalars) {
    SCOPED_TRACE(file);
    EXPECT_EQ(files[file].server_rank, server);
    EXPECT_EQ(files[file].shards, shards);
    EXPECT_EQ(files[file].scalars, scalars);
  };
  expect(0, 0, {1, 7, 9}, {2, 3});
  expect(1, 0, {8}, {});
  expect(2, 1, {0, 6, 10}, {0, 1});  // 5 and 11 are empty
  expect(3, 1, {2}, {});
  expect(4, 1, {3}, {});
  expect(5, 1, {4}, {});
  expect(6, 2, {}, {});
}

TEST(WriteShardFileTest, WritesGoldenBytes) {
  const TemporaryDirectory directory;
  const std::vector<ShardTensor> tensors = {
      {"model.a", DType::kFloat32, {1, 2}, {3, 0}, "01234567"},
      {"optim.state.a.step", DType::kFloat32, {}, {}, "abcd"}};
  int64_t reported = 0;
  ASSERT_OK_AND_ASSIGN(
      const FileRecord record,
      WriteShardFile(PosixFileSystem(), directory.path(), ShardFileName(0, 1), tensors,
                     {{kParamGroupsKey, "[]"}}, [&](int64_t bytes) { reported += bytes; }));
  const std::string content = Read(directory.File(ShardFileName(0, 1)));
  const std::string json =
      R"({"__metadata__":{"DCP_SHARDING_INFO":"{\"model.a\":{\"saved_offsets\":[3,0]},)"
      R"(\"optim.state.a.step\":{\"saved_offsets\":[]}}","DCP_VERSION":"1.0","format":"pt",)"
      R"("shardstep.param_groups":"[]"},)"
      R"("model.a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
      R"("optim.state.a.step":{"dtype":"F32","shape":[],"data_offsets":[8,12]}})";
  const size_t padded = (json.size() + 7) / 8 * 8;
  EXPECT_EQ(content.substr(0, 8), std::string({static_cast<char>(padded & 0xff),
                                               static_cast<char>(padded >> 8), 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(content.substr(8), json + std::string(padded - json.size(), ' ') + "01234567abcd");

  EXPECT_EQ(record.name, ShardFileName(0, 1));
  EXPECT_EQ(record.bytes, static_cast<int64_t>(content.size()));
  EXPECT_EQ(reported, record.bytes);
  EXPECT_EQ(record.chunk_bytes, 1 << 20);
  EXPECT_THAT(record.crc32c, ElementsAre(Crc32c(content)));
  EXPECT_EQ(record.sha256, Sha256Hex(content).value());
}

TEST(WriteShardFileTest, SumsTheWholeFileInChunks) {
  const TemporaryDirectory directory;
  // Pieces smaller and larger than what is gathered, and than a chunk.
  const std::vector<int64_t> sizes = {1, 300 << 10, 3, 0, (3 << 20) + 5, 7, (1 << 20) - 9};
  std::vector<std::string> memory;
  std::vector<ShardTensor> tensors;
  std::string data;
  for (const int64_t size : sizes) {
    std::string bytes(size, '\0');
    for (char& byte : bytes)
      byte = static_cast<char>(data.size() * 31 + (&byte - bytes.data()) % 251);
    data += bytes;
    memory.push_back(std::move(bytes));
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    tensors.push_back({ParameterKey(absl::StrCat(i)), DType::kUInt8, {sizes[i]}, {0}, memory[i]});
  }
  int64_t reported = 0;
  ASSERT_OK_AND_ASSIGN(const FileRecord record,
                       WriteShardFile(PosixFileSystem(), directory.path(), "a", tensors, {},
                                      [&](int64_t bytes) { reported += bytes; }));
  const std::string content = Read(directory.File("a"));
  EXPECT_EQ(content.substr(content.size() - data.size()), data);
  EXPECT_EQ(record.bytes, static_cast<int64_t>(content.size()));
  EXPECT_EQ(reported, record.bytes);
  EXPECT_EQ(record.sha256, Sha256Hex(content).value());
  std::vector<uint32_t> crcs;
  for (size_t at = 0; at < content.size(); at += 1 << 20) {
    crcs.push_back(Crc32c(absl::string_view(content).substr(at, 1 << 20)));
  }
  EXPECT_GT(crcs.size(), 4u);
  EXPECT_EQ(record.crc32c, crcs);
}

TEST(WriteShardFileTest, RoundsAMasterToTheDTypeThatItsParameterHasInTheFile) {
  const TemporaryDirectory directory;
  std::vector<float> master(100'001);
  for (size_t i = 0; i < master.size(); ++i) master[i] = 1 + 1e-3f * static_cast<float>(i);
  const absl::string_view bytes(reinterpret_cast<const char*>(master.data()), master.size() * 4);
  const Shape sizes = {static_cast<int64_t>(master.size())};
  const std::vector<ShardTensor> tensors = {
      {"model.h", DType::kBFloat16, sizes, {0}, bytes, /*master=*/true},
      {"optim.state.h.master", DType::kFloat32, sizes, {0}, bytes, /*master=*/true}};
  int64_t reported = 0;
  ASSERT_OK_AND_ASSIGN(const FileRecord record,
                       WriteShardFile(PosixFileSystem(), directory.path(), "a", tensors, {},
                                      [&](int64_t written) { reported += written; }));
  std::string rounded(master.size() * 2, '\0');
  Narrow(DType::kBFloat16, master.data(), sizes[0], rounded.data());
  const std::string content = Read(directory.File("a"));
  EXPECT_EQ(reported, static_cast<int64_t>(content.size()));
  EXPECT_EQ(record.bytes, reported);
  EXPECT_EQ(content.substr(content.size() - master.size() * 6), absl::StrCat(rounded, bytes));
}

TEST(WriteShardFileTest, RefusesTensorsThatDoNotFit) {
  const TemporaryDirectory directory;
  const auto write = [&](const std::vector<ShardTensor>& tensors) {
    return WriteShardFile(PosixFileSystem(), directory.path(), "a", tensors, {}, NoProgress)
        .status();
  };
  const auto refused = [](const std::string& what) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what));
  };
  EXPECT_THAT(write({{"model.a", DType::kFloat32, {2}, {0}, "1234"}}), refused("4 bytes at [0]"));
  EXPECT_THAT(write({{"model.a", DType::kFloat32, {1}, {}, "1234"}}), refused("at []"));
  EXPECT_THAT(write({{"model.a", DType::kFloat16, {1}, {0}, "12", /*master=*/true}}),
              refused("2 bytes at [0], expected 4 bytes for float32 of shape [1]"));
  EXPECT_THAT(write({{"model.a", DType::kComplex128, {0}, {0}, ""}}), refused("complex128"));
  EXPECT_THAT(write({{"model.a", DType::kFloat32, {0}, {0}, ""},
                     {"model.a", DType::kFloat32, {0}, {0}, ""}}),
              refused("the name is taken"));
  EXPECT_THAT(PosixFileSystem()->List(directory.path()), IsOkAndHolds(IsEmpty()));
  EXPECT_OK(write({}));
  EXPECT_THAT(write({}), StatusIs(absl::StatusCode::kAlreadyExists));
}

}  // namespace
}  // namespace shardstep
