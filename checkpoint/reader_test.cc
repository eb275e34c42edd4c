#include "shardstep/checkpoint/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/faulty_file_system.h"
#include "shardstep/checkpoint/shard_files.h"
#include "shardstep/checkpoint/small_checkpoint.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

void NoProgress(int64_t) {}

// One wanted part and the memory that it goes to.
struct Wanted {
  std::string key;
  Region part;
  std::string got;
};

// Reads into memory of the right size, with a guard behind it.
absl::Status Read(const CheckpointReader& reader, std::vector<Wanted>* wanted) {
  std::vector<CheckpointReader::Target> targets;
  for (Wanted& want : *wanted) {
    const int64_t bytes =
        ItemSize(reader.tensors().at(want.key).dtype) * ElementCount(want.part.sizes);
    want.got.assign(bytes + 1, '#');
    targets.push_back({want.key, want.part, want.got.data()});
  }
  const absl::Status status = reader.Read(targets, NoProgress);
  for (Wanted& want : *wanted) {
    EXPECT_EQ(want.got.back(), '#');
    want.got.pop_back();
  }
  return status;
}

// The bytes by the whole tensor, element by element.
std::string Oracle(const std::string& tensor, const Shape& sizes, int64_t item_size,
                   const Region& part) {
  std::string bytes;
  const size_t dims = sizes.size();
  Shape index(dims, 0);
  const int64_t elements = ElementCount(part.sizes);
  for (int64_t i = 0; i < elements; ++i) {
    int64_t rest = i;
    for (size_t d = dims; d-- > 0;) {
      index[d] = part.offsets[d] + rest % part.sizes[d];
      rest /= part.sizes[d];
    }
    int64_t place = 0;
    for (size_t d = 0; d < dims; ++d) place = place * sizes[d] + index[d];
    bytes += tensor.substr(place * item_size, item_size);
  }
  return bytes;
}

class Random {
 public:
  explicit Random(int seed) : random_(seed) {}
  int64_t Below(int64_t limit) { return static_cast<int64_t>(random_() % limit); }

  Region Part(const Shape& sizes) {
    Region part;
    for (const int64_t size : sizes) {
      part.offsets.push_back(Below(size + 1));
      part.sizes.push_back(Below(size - part.offsets.back() + 1));
    }
    return part;
  }

  std::vector<Placement> Placements(int64_t count, int servers) {
    std::vector<Placement> placements;
    for (int64_t i = 0; i < count; ++i) {
      placements.push_back({static_cast<int>(Below(servers)), "cpu"});
    }
    return placements;
  }

  std::optional<ShardingSpec> Spec(const Shape& sizes, int servers) {
    const int64_t kind = Below(4);
    if (kind == 0) return std::nullopt;
    if (kind == 1 || sizes.empty()) return Whole{static_cast<int>(Below(servers))};
    if (kind == 2) {
      return Chunk{static_cast<int>(Below(sizes.size())), Placements(1 + Below(5), servers)};
    }
    Shape grid;
    int64_t blocks = 1;
    for (size_t d = 0; d < sizes.size(); ++d) {
      grid.push_back(1 + Below(3));
      blocks *= grid.back();
    }
    return Grid(sizes, grid, Placements(blocks, servers)).value();
  }

 private:
  std::mt19937 random_;
};

TEST(CheckpointReaderTest, ReadsAnyPartOfAnySharding) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  Random random(seed);
  for (int round = 0; round < 40; ++round) {
    const int servers = 1 + static_cast<int>(random.Below(4));
    std::vector<ParameterShape> parameters;
    for (int64_t i = 1 + random.Below(4); i > 0; --i) {
      Shape sizes;
      for (int64_t dims = random.Below(5); dims > 0; --dims) sizes.push_back(random.Below(8));
      const DType dtype = random.Below(2) == 0 ? DType::kFloat32 : DType::kFloat64;
      std::optional<ShardingSpec> spec = random.Spec(sizes, servers);
      parameters.push_back({absl::StrCat("p", i), dtype, sizes, std::move(spec)});
    }
    const SmallModel model = MakeSmallModel(parameters, servers, seed + round);
    const TemporaryDirectory directory;
    ASSERT_OK(WriteSmallCheckpoint(PosixFileSystem(), directory.path(), model,
                                   MakeManifest(model, "1-7")));
    ASSERT_OK_AND_ASSIGN(
        const CheckpointReader reader,
        CheckpointReader::Open(PosixFileSystem(), directory.path(), "digits", "1-7"));
    ASSERT_EQ(reader.tensors().size(), model.tensors.size());
    std::vector<Wanted> wanted;
    for (const auto& [key, tensor] : reader.tensors()) {
      wanted.push_back({key, {Shape(tensor.sizes.size(), 0), tensor.sizes}, ""});
      wanted.push_back({key, random.Part(tensor.sizes), ""});
      wanted.push_back({key, random.Part(tensor.sizes), ""});
    }
    ASSERT_OK(Read(reader, &wanted));
    for (const Wanted& want : wanted) {
      const StoredTensor& tensor = reader.tensors().at(want.key);
      EXPECT_EQ(want.got,
                Oracle(model.tensors.at(want.key), tensor.sizes, ItemSize(tensor.dtype), want.part))
          << want.key << " " << ShapeToString(want.part.offsets);
    }
  }
}

// Tensors of several chunks, float64 ones astride their ends.
SmallModel LargeModel() {
  return MakeSmallModel(
      {{"odd", DType::kFloat32, {3}, Whole{0}}, {"large", DType::kFloat64, {600, 500}, Whole{0}}},
      1, /*seed=*/2);
}

TEST(CheckpointReaderTest, ReadsOnlyChunksThatHoldSomethingWanted) {
  const TemporaryDirectory directory;
  FaultyFileSystem files(PosixFileSystem());
  const SmallModel model = LargeModel();
  ASSERT_OK(WriteSmallCheckpoint(&files, directory.path(), model, MakeManifest(model, "1-7")));
  ASSERT_OK_AND_ASSIGN(const CheckpointReader reader,
                       CheckpointReader::Open(&files, directory.path(), "digits", "1-7"));
  ASSERT_EQ(reader.manifest().files.size(), 1u);
  const StoredTensor& tensor = reader.tensors().at("model.large");
  // Columns of two far rows, and a row that crosses the end of chunk 1.
  const int64_t row_bytes = 500 * 8;
  const int64_t offset = tensor.chunks[0].offset;
  const int64_t crossing = ((2 << 20) - offset) / row_bytes;
  ASSERT_NE(((2 << 20) - offset) % 8, 0);  // and an element does, too
  std::vector<Wanted> wanted = {{"model.large", {{1, 7}, {1, 3}}, ""},
                                {"model.large", {{crossing, 0}, {1, 500}}, ""},
                                {"model.odd", {{1}, {1}}, ""}};
  files.reads().clear();
  int64_t bytes = 0;
  ASSERT_OK(Read(reader, &wanted));
  std::set<int64_t> chunks;
  for (const FaultyFileSystem::ReadCall& read : files.reads()) {
    bytes += static_cast<int64_t>(read.size);
    for (int64_t at = read.offset; at < read.offset + static_cast<int64_t>(read.size);
         at += kChunkBytes) {
      EXPECT_TRUE(chunks.insert(at / kChunkBytes).second) << "read twice: " << at;
    }
  }
  EXPECT_EQ(chunks, std::set<int64_t>({0, 1, 2}));
  EXPECT_EQ(bytes, 3 * kChunkBytes);
  EXPECT_EQ(files.reads().size(), 1u);
  for (const Wanted& want : wanted) {
    const StoredTensor& of = reader.tensors().at(want.key);
    EXPECT_EQ(want.got,
              SliceOf(model.tensors.at(want.key), of.sizes, ItemSize(of.dtype), want.part));
  }

  // The last row alone: one chunk far behind.
  files.reads().clear();
  wanted = {{"optim.state.large.exp_avg_sq", {{599, 499}, {1, 1}}, ""}};
  ASSERT_OK(Read(reader, &wanted));
  ASSERT_EQ(files.reads().size(), 1u);
  EXPECT_LE(files.reads()[0].size, static_cast<size_t>(kChunkBytes));

  files.reads().clear();
  wanted = {{"model.large", {{3, 3}, {0, 4}}, ""}};
  ASSERT_OK(Read(reader, &wanted));
  EXPECT_TRUE(files.reads().empty());
}

TEST(CheckpointReaderTest, SkipsChunksBetweenTheRowsOfAPart) {
  const TemporaryDirectory directory;
  FaultyFileSystem files(PosixFileSystem());
  const SmallModel model =
      MakeSmallModel({{"wide", DType::kFloat32, {3, 700'000}, Whole{0}}}, 1, /*seed=*/3);
  ASSERT_OK(WriteSmallCheckpoint(&files, directory.path(), model, MakeManifest(model, "1-7")));
  ASSERT_OK_AND_ASSIGN(const CheckpointReader reader,
                       CheckpointReader::Open(&files, directory.path(), "digits", "1-7"));
  files.reads().clear();
  std::vector<Wanted> wanted = {{"model.wide", {{0, 10}, {3, 5}}, ""}};
  ASSERT_OK(Read(reader, &wanted));
  ASSERT_EQ(files.reads().size(), 3u);
  for (const FaultyFileSystem::ReadCall& read : files.reads()) {
    EXPECT_EQ(read.size, static_cast<size_t>(kChunkBytes));
  }
  EXPECT_EQ(wanted[0].got,
            SliceOf(model.tensors.at("model.wide"), {3, 700'000}, 4, wanted[0].part));
}

TEST(CheckpointReaderTest, ReadsLargeTensorsWhole) {
  const TemporaryDirectory directory;
  const SmallModel model = LargeModel();
  ASSERT_OK(
      WriteSmallCheckpoint(PosixFileSystem(), directory.path(), model, MakeManifest(model, "1-7")));
  ASSERT_OK_AND_ASSIGN(
      const CheckpointReader reader,
      CheckpointReader::Open(PosixFileSystem(), directory.path(), "digits", "1-7"));
  std::vector<Wanted> wanted;
  for (const auto& [key, tensor] : reader.tensors()) {
    wanted.push_back({key, {Shape(tensor.sizes.size(), 0), tensor.sizes}, ""});
  }
  wanted.push_back({"model.large", {{0, 3}, {600, 490}}, ""});
  ASSERT_OK(Read(reader, &wanted));
  for (const Wanted& want : wanted) {
    const StoredTensor& of = reader.tensors().at(want.key);
    EXPECT_TRUE(want.got ==
                SliceOf(model.tensors.at(want.key), of.sizes, ItemSize(of.dtype), want.part))
        << want.key;
  }
}

TEST(CheckpointReaderTest, RefusesPartsThatThereAreNot) {
  const TemporaryDirectory directory;
  const SmallModel model = TwoServerModel();
  ASSERT_OK(
      WriteSmallCheckpoint(PosixFileSystem(), directory.path(), model, MakeManifest(model, "1-7")));
  ASSERT_OK_AND_ASSIGN(
      const CheckpointReader reader,
      CheckpointReader::Open(PosixFileSystem(), directory.path(), "digits", "1-7"));
  const auto read = [&](const std::string& key, const Region& part) {
    char out[256];
    const CheckpointReader::Target target = {key, part, out};
    return reader.Read({target}, NoProgress);
  };
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tensor \"model."));
  EXPECT_THAT(read("model.other", {{0}, {1}}), refused);
  EXPECT_THAT(read("model.fc1.bias", {{0}, {4}}), refused);
  EXPECT_THAT(read("model.fc1.bias", {{1}, {INT64_MAX}}), refused);
  EXPECT_THAT(read("model.fc1.bias", {{-1}, {1}}), refused);
  EXPECT_THAT(read("model.fc1.bias", {{0}, {-1}}), refused);
  EXPECT_THAT(read("model.fc1.bias", {{}, {}}), refused);
  EXPECT_THAT(read("model.fc1.bias", {{0, 0}, {1, 1}}), refused);
  EXPECT_OK(read("model.fc1.bias", {{3}, {0}}));
}

// Checkpoints whose bytes are as they were written, by a writer that wrote the wrong things.
TEST(CheckpointReaderTest, TensorsThatAreNotTheManifestsAreRefused) {
  const SmallModel model = TwoServerModel();
  const auto open = [&](const Manifest& manifest) {
    const TemporaryDirectory directory;
    EXPECT_OK(WriteSmallCheckpoint(PosixFileSystem(), directory.path(), model, manifest));
    return CheckpointReader::Open(PosixFileSystem(), directory.path(), "digits", "1-7").status();
  };
  const auto refused = [](const std::string& what) {
    return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(what));
  };
  EXPECT_OK(open(MakeManifest(model, "1-7")));
  {
    Manifest manifest = MakeManifest(model, "1-7");
    manifest.states.pop_back();
    EXPECT_THAT(open(manifest), refused("none of the optimizer's states"));
  }
  {
    Manifest manifest = MakeManifest(model, "1-7");
    manifest.states[0].dtype = DType::kFloat64;
    EXPECT_THAT(open(manifest), refused("dtype float32, expected float64"));
  }
  {
    Manifest manifest = MakeManifest(model, "1-7");
    manifest.states[3].extent = Extent::kElement;
    EXPECT_THAT(open(manifest), refused("do not cover its shape [5,3]"));
  }
  SmallModel other = MakeSmallModel({{"fc1.weight", DType::kFloat32, {6, 3}, Whole{0}},
                                     {"fc1.bias", DType::kFloat64, {3}, Whole{1}}},
                                    2, 1);
  EXPECT_THAT(open(MakeManifest(other, "1-7")), refused("do not cover its shape [6,3]"));
  other.parameters[0].name = "other";
  EXPECT_THAT(open(MakeManifest(other, "1-7")), refused("no file has tensor \"model.other\""));
}

TEST(CheckpointReaderTest, AParameterThatHasAMasterNeedsIt) {
  const SmallModel model = MakeSmallModel({{"h", DType::kBFloat16, {4}, Whole{0}}}, 1, /*seed=*/1);
  const TemporaryDirectory directory;
  ASSERT_OK(
      WriteSmallCheckpoint(PosixFileSystem(), directory.path(), model, MakeManifest(model, "1-7")));
  EXPECT_THAT(CheckpointReader::Open(PosixFileSystem(), directory.path(), "digits", "1-7").status(),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("no file has tensor \"optim.state.h.master\"")));
}

}  // namespace
}  // namespace shardstep
