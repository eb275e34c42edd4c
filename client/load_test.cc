#include "shardstep/client/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/option_json.h"
#include "shardstep/checkpoint/safetensors_file.h"
#include "shardstep/client/fake_fleet.h"
#include "shardstep/client/load_feed.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

HostTensor Floats(const Shape& sizes, float first) {
  HostTensor tensor{DType::kFloat32, sizes, {}};
  tensor.bytes.resize(static_cast<size_t>(NumBytes(sizes, tensor.dtype).value()));
  for (size_t i = 0; i < tensor.bytes.size() / 4; ++i) {
    const float value = first + static_cast<float>(i);
    std::memcpy(&tensor.bytes[i * 4], &value, 4);
  }
  return tensor;
}

class LoadTest : public testing::Test {
 protected:
  LoadTest()
      : index_(Describe({{"w", DType::kFloat32, {4, 2}, Chunk{0, {{0}, {1}}}},
                         {"v", DType::kFloat32, {2}, Whole{1}}},
                        2)) {
    dict_.parameters = {{"w", Floats({4, 2}, 0)}, {"v", Floats({2}, 50)}};
    dict_.state["w"] = {{"momentum_buffer", Floats({4, 2}, 100)}, {"step", 5.0}};
  }

  absl::StatusOr<v1::LoadChange> Change(const StateDict& dict, bool strict = true) {
    const absl::StatusOr<std::unique_ptr<LoadSource>> source = LoadSource::Of(dict);
    if (!source.ok()) return source.status();
    return MakeLoadChange(**source, index_, strict);
  }

  std::string WriteFile(const std::string& name,
                        const std::vector<std::pair<std::string, HostTensor>>& tensors,
                        const std::map<std::string, std::string>& metadata) {
    const std::string path = testing::TempDir() + "/" + name;
    std::vector<SafetensorsEntry> entries;
    for (const auto& [key, tensor] : tensors) {
      entries.push_back({key, tensor.dtype, tensor.sizes, 0, 0});
    }
    std::unique_ptr<SafetensorsWriter> file =
        SafetensorsWriter::Create(PosixFileSystem(), path, entries, metadata).value();
    for (size_t i = 0; i < tensors.size(); ++i) {
      const std::vector<char>& bytes = tensors[i].second.bytes;
      EXPECT_OK(file->WriteAt(i, 0, absl::string_view(bytes.data(), bytes.size())));
    }
    EXPECT_OK(file->Commit());
    return path;
  }

  OptimizerIndex index_;
  StateDict dict_;
};

TEST_F(LoadTest, TheDigestIsOfEveryByteAndOfNothingElse) {
  ASSERT_OK_AND_ASSIGN(const v1::LoadChange change, Change(dict_));
  ASSERT_OK_AND_ASSIGN(const v1::LoadChange again, Change(StateDict(dict_)));
  EXPECT_EQ(change.digest(), again.digest());
  const auto differs = [&](const StateDict& other) {
    return Change(other).value().digest() != change.digest();
  };
  StateDict other = dict_;
  other.parameters["w"].bytes[31] ^= 1;
  EXPECT_TRUE(differs(other));
  other = dict_;
  other.state["w"]["step"] = 6.0;
  EXPECT_TRUE(differs(other));
  other = dict_;
  other.trainer_states[0] = "x";
  EXPECT_TRUE(differs(other));
  other = dict_;
  other.param_groups = index_.description().groups;
  EXPECT_TRUE(differs(other));
}

TEST_F(LoadTest, TensorsThatDoNotFitAreRefusedBeforeAnyCall) {
  StateDict bad = dict_;
  bad.parameters["w"] = Floats({2, 4}, 0);
  EXPECT_THAT(Change(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                    "parameter \"w\": expected shape [4,2], got [2,4]"));
  bad = dict_;
  std::get<HostTensor>(bad.state["w"]["momentum_buffer"]).dtype = DType::kInt32;
  EXPECT_THAT(Change(bad),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "parameter \"w\", state \"momentum_buffer\": expected dtype float32, got "
                       "int32"));
  bad = dict_;
  bad.state["w"]["step"] = Floats({4, 2}, 0);
  EXPECT_THAT(Change(bad),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected a number")));
  bad = dict_;
  bad.state["w"]["momentum_buffer"] = 1.0;
  EXPECT_THAT(Change(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("expected shape [4,2], got []")));
  bad = dict_;
  bad.parameters["w"].bytes.pop_back();
  EXPECT_THAT(Change(bad),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has 32 bytes, got 31")));
}

TEST_F(LoadTest, AMasterIsSentInsteadOfTheValueUnlessItIsOfTheParametersDType) {
  OptimizerDescription description = Describe({{"h", DType::kBFloat16, {2}, Whole{0}}}, 1);
  description.states.push_back(StateSpec::Tensor(kMasterState));
  const OptimizerIndex index(description);
  StateDict dict;
  dict.parameters["h"] = {DType::kBFloat16, {2}, std::vector<char>(4)};
  for (const bool exact : {true, false}) {
    dict.state["h"]["master"] =
        exact ? Floats({2}, 0) : HostTensor{DType::kBFloat16, {2}, std::vector<char>(4)};
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source, LoadSource::Of(dict));
    ASSERT_OK_AND_ASSIGN(const v1::LoadChange change, MakeLoadChange(*source, index, true));
    ASSERT_THAT(change.tensors(), SizeIs(1));
    EXPECT_EQ(change.tensors(0).value(), !exact);
    EXPECT_EQ(change.tensors(0).states_size(), exact ? 1 : 0);
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadFeed> feed,
                         LoadFeed::Make(*source, index, 1, nullptr));
    std::vector<std::vector<OutgoingSlice>> slices(1);
    ASSERT_THAT(feed->Next(&slices), IsOkAndHolds(true));
    ASSERT_THAT(feed->Next(&slices), IsOkAndHolds(false));
    ASSERT_THAT(slices[0], SizeIs(1));
    EXPECT_EQ(slices[0][0].dtype, exact ? DType::kFloat32 : DType::kBFloat16);
    EXPECT_EQ(slices[0][0].tensor, exact ? index.description().states.size() : 0);
  }
}

TEST_F(LoadTest, TensorsOfAParameterWithAMasterAreOfItsDTypeOrFloat32) {
  const OptimizerIndex index(Describe({{"h", DType::kFloat16, {2}, Whole{0}}}, 1));
  StateDict dict;
  dict.state["h"]["momentum_buffer"] = Floats({2}, 0);
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<LoadSource> source, LoadSource::Of(dict));
  EXPECT_OK(MakeLoadChange(*source, index, true).status());
  dict.state["h"]["momentum_buffer"] = HostTensor{DType::kBFloat16, {2}, std::vector<char>(4)};
  ASSERT_OK_AND_ASSIGN(source, LoadSource::Of(dict));
  EXPECT_THAT(MakeLoadChange(*source, index, true).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "parameter \"h\", state \"momentum_buffer\": expected dtype float16 or "
                       "float32, got bfloat16"));
}

TEST_F(LoadTest, UnknownNamesAreTheCoordinatorsToJudge) {
  dict_.state["nobody"]["step"] = 1.0;
  dict_.state["w"]["mystery"] = 2.0;
  ASSERT_OK_AND_ASSIGN(const v1::LoadChange change, Change(dict_));
  ASSERT_THAT(change.tensors(), SizeIs(3));
  EXPECT_EQ(change.tensors(0).parameter(), "nobody");
  EXPECT_FALSE(change.tensors(0).value());
  EXPECT_THAT(change.tensors(2).states(), ElementsAre("momentum_buffer", "mystery", "step"));
  // And are not written.
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source, LoadSource::Of(dict_));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadFeed> feed,
                       LoadFeed::Make(*source, index_, 2, nullptr));
  EXPECT_THAT(feed->ScalarsFor(0).scalars(), SizeIs(1));
}

TEST_F(LoadTest, AStatePerRowGoesToEveryShardOfTheRow) {
  OptimizerDescription description =
      Describe({{"w", DType::kFloat32, {4, 6}, Chunk{1, {{0}, {1}}}}}, 2);
  description.states = {StateSpec::Tensor("row_var", Extent::kRow),
                        StateSpec::Tensor("col_var", Extent::kColumn)};
  const OptimizerIndex index(description);
  StateDict dict;
  dict.state["w"] = {{"row_var", Floats({4, 1}, 0)}, {"col_var", Floats({1, 6}, 10)}};
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source, LoadSource::Of(dict));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadFeed> feed,
                       LoadFeed::Make(*source, index, 2, nullptr));
  std::vector<std::vector<OutgoingSlice>> slices(2);
  ASSERT_THAT(feed->Next(&slices), IsOkAndHolds(true));
  ASSERT_THAT(feed->Next(&slices), IsOkAndHolds(true));
  EXPECT_THAT(feed->Next(&slices), IsOkAndHolds(false));
  for (int rank : {0, 1}) {
    SCOPED_TRACE(rank);
    // By name: col_var comes first.
    ASSERT_THAT(slices[rank], SizeIs(2));
    EXPECT_EQ(slices[rank][0].tensor, 2u);
    EXPECT_EQ(slices[rank][0].count, 3u);
    float column = 0;
    std::memcpy(&column, slices[rank][0].pieces[0].data(), 4);
    EXPECT_EQ(column, 10 + 3 * rank);
    EXPECT_EQ(slices[rank][1].tensor, 1u);
    EXPECT_EQ(slices[rank][1].offset, 0u);
    EXPECT_EQ(slices[rank][1].count, 4u);
  }

  dict.state["w"]["row_var"] = Floats({4, 6}, 0);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> wide, LoadSource::Of(dict));
  EXPECT_THAT(MakeLoadChange(*wide, index, true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "parameter \"w\", state \"row_var\": expected shape [4,1], got [4,6]"));
}

TEST_F(LoadTest, AFileIsReadInPiecesThatOwnTheirMemory) {
  const int64_t rows = 3 << 20;
  const OptimizerIndex index(
      Describe({{"table", DType::kFloat32, {rows, 2}, Chunk{1, {{0}, {1}}}}}, 2));
  const HostTensor table = Floats({rows, 2}, 0);
  const std::string path = WriteFile("table.safetensors", {{"model.table", table}}, {});
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source,
                       LoadSource::Open({path, ""}, index));
  uint64_t done = 0;
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadFeed> feed,
                       LoadFeed::Make(*source, index, 2, [&](uint64_t d, uint64_t) { done = d; }));
  std::string columns[2];
  for (int round : {0, 1}) {  // the second time from its beginning
    for (std::string& column : columns) column.clear();
    feed->Rewind();
    int parts = 0;
    while (true) {
      std::vector<std::vector<OutgoingSlice>> slices(2);
      ASSERT_OK_AND_ASSIGN(const bool more, feed->Next(&slices));
      if (!more) break;
      ++parts;
      for (int rank : {0, 1}) {
        for (const OutgoingSlice& slice : slices[rank]) {
          ASSERT_EQ(slice.offset * 4, columns[rank].size()) << round;
          ASSERT_NE(slice.owner, nullptr);
          for (absl::string_view piece : slice.pieces)
            columns[rank].append(piece.data(), piece.size());
        }
      }
    }
    EXPECT_GE(parts, 6);
    EXPECT_EQ(done, table.bytes.size());
  }
  for (int64_t i = 0; i < rows; i += 4099) {
    for (int rank : {0, 1}) {
      ASSERT_EQ(std::memcmp(&columns[rank][i * 4], &table.bytes[(i * 2 + rank) * 4], 4), 0);
    }
  }
}

TEST_F(LoadTest, GroupsComeFromTheJsonFileBesideWhatPythonWrote) {
  const HostTensor step{DType::kFloat32, {}, std::vector<char>(4)};
  const std::string path = WriteFile(
      "python.safetensors", {{"optim.state.w.step", step}, {"model.w", dict_.parameters["w"]}},
      {{"shardstep.param_groups", "not looked at"}});
  EXPECT_THAT(LoadSource::Open({path, ""}, index_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("shardstep.param_groups")));
  const std::string good =
      WriteFile("python2.safetensors", {{"model.w", dict_.parameters["w"]}}, {});
  const std::string json = testing::TempDir() + "/groups.json";
  std::ofstream(json) << R"([{"lr": 0.5, "momentum": 0, "foreach": null, "params": ["w", "v"]}])";
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source,
                       LoadSource::Open({good, json}, index_));
  ASSERT_THAT(source->param_groups(), SizeIs(1));
  EXPECT_THAT(source->param_groups()[0].params, ElementsAre("w", "v"));
  EXPECT_EQ(*source->param_groups()[0].options.Find("lr"), OptionValue(0.5));
  std::ofstream(json) << "[{]";
  EXPECT_THAT(LoadSource::Open({good, json}, index_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("groups.json")));
}

TEST_F(LoadTest, PlainNamesAreToldFromKeysByTheOptimizersOwn) {
  const OptimizerIndex prefixed(Describe({{"model.w", DType::kFloat32, {4, 2}, Whole{0}}}, 1));
  const std::string path = WriteFile("plain.safetensors", {{"model.w", dict_.parameters["w"]}}, {});
  EXPECT_EQ(LoadSource::Open({path, ""}, prefixed).value()->tensors()[0].parameter, "model.w");
  EXPECT_EQ(LoadSource::Open({path, ""}, index_).value()->tensors()[0].parameter, "w");
  const std::string other = WriteFile(
      "other.safetensors", {{"w", dict_.parameters["w"]}, {"head", dict_.parameters["v"]}}, {});
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source,
                       LoadSource::Open({other, ""}, index_));
  EXPECT_EQ(source->tensors()[0].parameter, "head");
  const std::string mixed = WriteFile(
      "mixed.safetensors",
      {{"w", dict_.parameters["w"]}, {"optim.state.w.momentum_buffer", dict_.parameters["w"]}}, {});
  EXPECT_THAT(LoadSource::Open({mixed, ""}, index_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"w\"")));
}

}  // namespace
}  // namespace shardstep::internal
