#include "shardstep/examples/digits/state_file.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/safetensors_file.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

HostTensor Floats(Shape sizes, const std::vector<float>& values) {
  const char* const begin = reinterpret_cast<const char*>(values.data());
  return {DType::kFloat32, std::move(sizes), {begin, begin + values.size() * sizeof(float)}};
}

NamedTensors Example() {
  return {{"model.fc.weight", Floats({2, 2}, {1, -2.5f, 0, 1e-40f})},
          {"optim.state.fc.weight.step", Floats({}, {7})}};
}

TEST(StateFileTest, ReadsEveryTensor) {
  const NamedTensors example = Example();
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, tensor] : example) entries.push_back({name, tensor.dtype, tensor.sizes});
  const std::string path = ::testing::TempDir() + "/state.safetensors";
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<SafetensorsWriter> writer,
                       SafetensorsWriter::Create(PosixFileSystem(), path, entries, {}));
  size_t entry = 0;
  for (const auto& [name, tensor] : example)
    ASSERT_OK(writer->WriteAt(entry++, 0, {tensor.bytes.data(), tensor.bytes.size()}));
  ASSERT_OK(writer->Commit());

  ASSERT_OK_AND_ASSIGN(const NamedTensors read, ReadStateFile(path));
  EXPECT_OK(CompareBits(read, example));
}

TEST(CompareBitsTest, NamesTheFirstDifference) {
  const auto difference = [](const NamedTensors& other) {
    const absl::Status status = CompareBits(Example(), other);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(status.message());
  };
  NamedTensors other = Example();
  other["model.fc.weight"] = Floats({2, 2}, {1, -2.5f, -0.0f, 1e-40f});
  EXPECT_EQ(difference(other), "\"model.fc.weight\" differs from byte 11 on");
  other["model.fc.weight"] = Floats({4}, {1, -2.5f, 0, 1e-40f});
  EXPECT_EQ(difference(other), "\"model.fc.weight\": float32[2,2] against float32[4]");
  other.erase("model.fc.weight");
  EXPECT_EQ(difference(other), "only one of both has \"model.fc.weight\"");
  other = Example();
  other["model.more"] = Floats({}, {1});
  EXPECT_EQ(difference(other), "only one of both has \"model.more\"");
}

}  // namespace
}  // namespace shardstep
