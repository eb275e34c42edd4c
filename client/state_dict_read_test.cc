#include "shardstep/client/state_dict_read.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/safetensors_file.h"
#include "shardstep/client/fake_fleet.h"
#include "shardstep/client/load_source.h"
#include "shardstep/client/read_lanes.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::NiceMock;
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

bool Same(const HostTensor& a, const HostTensor& b) {
  return a.dtype == b.dtype && a.sizes == b.sizes && a.bytes == b.bytes;
}

// Two servers. "rows" is cut by rows, "cols" by columns, "bias" is on server 1, "none" is empty.
// "bias" was never stepped. The handle's own plan is an older one.
class StateDictReadTest : public testing::Test {
 protected:
  StateDictReadTest() {
    description_ = Describe({{"rows", DType::kFloat32, {4, 6}, Chunk{0, {{0}, {1}}}},
                             {"cols", DType::kFloat32, {5, 4}, Chunk{1, {{0}, {1}}}},
                             {"bias", DType::kFloat32, {3}, Whole{1}},
                             {"none", DType::kFloat32, {0, 2}, Whole{0}}},
                            2);
    index_ = std::make_shared<const OptimizerIndex>(description_);
    dict_.parameters = {{"rows", Floats({4, 6}, 0)},
                        {"cols", Floats({5, 4}, 100)},
                        {"bias", Floats({3}, 200)},
                        {"none", Floats({0, 2}, 0)}};
    dict_.state["rows"] = {{"momentum_buffer", Floats({4, 6}, 300)}, {"step", 7.0}};
    dict_.state["cols"] = {{"momentum_buffer", Floats({5, 4}, 400)}, {"step", 3.0}};
    dict_.state["none"] = {{"momentum_buffer", Floats({0, 2}, 0)}, {"step", 7.0}};
    auto connection = std::make_unique<NiceMock<MockConnection>>(index_, 2);
    connection_ = connection.get();
    client_ = MakeCore(std::move(connection), &timer_);
    snapshot_.set_snapshot(5);
    snapshot_.set_version(12);
    snapshot_.set_lineage(3);
    snapshot_.set_plan_id(index_->plan_id());
    snapshot_.set_lease_ms(30000);
    snapshot_.set_kind(v1::EVERYTHING);
    ON_CALL(*connection_, OpenSnapshot)
        .WillByDefault([this](const v1::OpenSnapshotRequest& request, absl::Time) {
          opened_.push_back(request);
          v1::OpenSnapshotReply reply;
          *reply.mutable_snapshot() = snapshot_;
          return reply;
        });
    ON_CALL(*connection_, CloseSnapshot)
        .WillByDefault([this](const v1::CloseSnapshotRequest& request, absl::Time) {
          closed_.push_back(request.snapshot());
          return v1::CloseSnapshotReply();
        });
    ON_CALL(*connection_, Describe)
        .WillByDefault([this](const v1::DescribeRequest& request, absl::Time) {
          EXPECT_EQ(request.snapshot(), snapshot_.snapshot());
          v1::Description description = DescriptionToProto(description_);
          v1::TrainerState& trainer = *description.add_trainers();
          trainer.set_trainer_rank(1);
          trainer.set_state("batch 9");
          v1::DescribeReply reply;
          *reply.mutable_description() =
              PagedMessage(description.SerializeAsString()).page(request.page()).value();
          return reply;
        });
    Serve(/*frame_bytes=*/20);
    v1::CallHeader header;
    header.set_optimizer("digits");
    pull_ = std::make_unique<PullCore>(client_, header,
                                       std::make_shared<const OptimizerIndex>(
                                           Describe({{"rows", DType::kFloat32, {4, 6}, {}}}, 2)));
  }

  void Serve(size_t frame_bytes) {
    for (int rank : {0, 1}) {
      connection_->readers[rank].serve = [this, rank, frame_bytes](const auto& request) {
        return ServeRead(*index_, rank, snapshot_, dict_, request, frame_bytes);
      };
    }
  }

  void ExpectWhole(const StateDict& read) {
    EXPECT_EQ(read.version, 12u);
    EXPECT_EQ(read.lineage, 3u);
    ASSERT_THAT(read.parameters, SizeIs(4));
    for (const auto& [name, value] : dict_.parameters) {
      EXPECT_TRUE(Same(read.parameters.at(name), value)) << name;
    }
    ASSERT_THAT(read.state, SizeIs(3));
    for (const auto& [name, states] : dict_.state) {
      EXPECT_TRUE(Same(std::get<HostTensor>(read.state.at(name).at("momentum_buffer")),
                       std::get<HostTensor>(states.at("momentum_buffer"))))
          << name;
      EXPECT_EQ(std::get<double>(read.state.at(name).at("step")),
                std::get<double>(states.at("step")));
    }
  }

  FakeTimer timer_;
  OptimizerDescription description_;
  std::shared_ptr<const OptimizerIndex> index_;
  StateDict dict_;
  NiceMock<MockConnection>* connection_ = nullptr;
  std::shared_ptr<const ClientCore> client_;
  v1::Snapshot snapshot_;
  std::vector<v1::OpenSnapshotRequest> opened_;
  std::vector<uint64_t> closed_;
  std::unique_ptr<PullCore> pull_;
};

TEST_F(StateDictReadTest, GathersEverythingByThePlanOfTheSnapshot) {
  description_.groups[0].options.Set("lr", 0.25);
  ASSERT_OK_AND_ASSIGN(const StateDict read, ReadStateDict(pull_.get(), {}, 11));
  ExpectWhole(read);
  EXPECT_EQ(*read.param_groups[0].options.Find("lr"), OptionValue(0.25));
  EXPECT_EQ(read.trainer_states, (std::map<int, std::string>{{1, "batch 9"}}));
  ASSERT_THAT(opened_, SizeIs(1));
  EXPECT_EQ(opened_[0].kind(), v1::EVERYTHING);
  EXPECT_EQ(opened_[0].at_least_version(), 11u);
  EXPECT_THAT(closed_, ElementsAre(5));
}

TEST_F(StateDictReadTest, ParametersAloneNeedNoSnapshotOfState) {
  StateDictOptions options;
  options.state = false;
  ASSERT_OK_AND_ASSIGN(const StateDict read, ReadStateDict(pull_.get(), options, 0));
  EXPECT_EQ(opened_[0].kind(), v1::PARAMETERS);
  EXPECT_THAT(read.parameters, SizeIs(4));
  EXPECT_THAT(read.state, SizeIs(0));
}

TEST_F(StateDictReadTest, PartsAreCutOutOfAnySharding) {
  StateDictOptions options;
  options.parameters = false;
  options.state = false;
  options.parts = {{"rows", "momentum_buffer", Region{{1, 2}, {2, 3}}}, {"cols", "step", {}}};
  ASSERT_OK_AND_ASSIGN(const StateDict read, ReadStateDict(pull_.get(), options, 0));
  EXPECT_THAT(read.parameters, SizeIs(0));
  const HostTensor& part = std::get<HostTensor>(read.state.at("rows").at("momentum_buffer"));
  EXPECT_EQ(part.sizes, (Shape{2, 3}));
  HostTensor expected = Floats({2, 3}, 0);
  const float values[] = {308, 309, 310, 314, 315, 316};
  std::memcpy(expected.bytes.data(), values, sizeof(values));
  EXPECT_TRUE(Same(part, expected));
  EXPECT_EQ(std::get<double>(read.state.at("cols").at("step")), 3.0);
  EXPECT_EQ(read.state.at("rows").count("step"), 0u);
}

TEST_F(StateDictReadTest, RandomPartsEqualTheWholeCutInMemory) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 50; ++round) {
    const std::string name = random() % 2 == 0 ? "rows" : "cols";
    const HostTensor& whole = dict_.parameters.at(name);
    Region region;
    for (int64_t size : whole.sizes) {
      region.offsets.push_back(static_cast<int64_t>(random() % size));
      region.sizes.push_back(static_cast<int64_t>(random() % (size - region.offsets.back() + 1)));
    }
    Serve(4 << random() % 4);
    StateDictOptions options;
    options.state = false;
    options.parts = {{name, "", region}};
    ASSERT_OK_AND_ASSIGN(const StateDict read, ReadStateDict(pull_.get(), options, 0));
    std::vector<char> expected;
    for (int64_t i = 0; i < region.sizes[0]; ++i) {
      const auto row =
          whole.bytes.begin() + ((region.offsets[0] + i) * whole.sizes[1] + region.offsets[1]) * 4;
      expected.insert(expected.end(), row, row + region.sizes[1] * 4);
    }
    EXPECT_EQ(read.parameters.at(name).bytes, expected) << name;
  }
}

TEST_F(StateDictReadTest, WhatThereIsNotIsRefusedWithTheNearestName) {
  StateDictOptions options;
  options.parts = {{"row", "", {}}};
  EXPECT_THAT(ReadStateDict(pull_.get(), options, 0),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("did you mean \"rows\"")));
  options.parts = {{"rows", "momentum", {}}};
  EXPECT_THAT(ReadStateDict(pull_.get(), options, 0),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("state \"momentum\"")));
  options.parts = {{"rows", "", Region{{3, 0}, {2, 6}}}};
  EXPECT_THAT(ReadStateDict(pull_.get(), options, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("does not fit")));
  options.parts = {{"rows", "", {}}, {"rows", "step", {}}};
  EXPECT_THAT(ReadStateDict(pull_.get(), options, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("two parts")));
  EXPECT_THAT(closed_, SizeIs(4));
}

TEST_F(StateDictReadTest, ALostSnapshotIsReplacedAndReadFromItsBeginning) {
  FakeReadServer::Script gone;
  gone.status = MakeError(absl::StatusCode::kAborted, "snapshot 5 was closed", v1::SNAPSHOT_GONE);
  int reads = 0;
  const auto serve = connection_->readers[1].serve;
  connection_->readers[1].serve = [&](const auto& request) {
    return ++reads == 2 ? gone : serve(request);  // behind the search for state
  };
  ASSERT_OK_AND_ASSIGN(const StateDict read, ReadStateDict(pull_.get(), {}, 0));
  ExpectWhole(read);
  EXPECT_THAT(opened_, SizeIs(2));
}

TEST_F(StateDictReadTest, ABrokenStreamGoesOnWhereItWas) {
  const auto serve = connection_->readers[0].serve;
  int reads = 0;
  connection_->readers[0].serve = [&](const auto& request) {
    FakeReadServer::Script script = serve(request);
    if (++reads == 2) {
      script.headers.resize(4);
      script.payloads.resize(4);
      script.status = absl::UnavailableError("Socket closed");
    }
    return script;
  };
  ASSERT_OK_AND_ASSIGN(const StateDict read, ReadStateDict(pull_.get(), {}, 0));
  ExpectWhole(read);
  EXPECT_EQ(connection_->readers[0].requests.back().skip_bytes(), 3 * 20u - 12u);
}

TEST_F(StateDictReadTest, AStreamThatHangsIsGivenUpInTime) {
  const auto serve = connection_->readers[0].serve;
  int reads = 0;
  connection_->readers[0].serve = [&](const auto& request) {
    FakeReadServer::Script script = serve(request);
    if (++reads > 1) {
      script.headers.resize(2);
      script.payloads.resize(2);
      script.hangs = true;
    }
    return script;
  };
  StateDictOptions options;
  options.timeout = absl::Milliseconds(10);
  EXPECT_THAT(ReadStateDict(pull_.get(), options, 0),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("server 0")));
}

TEST_F(StateDictReadTest, AStreamEndsAtItsDeadlineAlsoWhileFramesCome) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<StateDictStream> stream,
                       OpenStateDictStream(pull_.get(), {}, 0, timer_.Now() + absl::Minutes(1)));
  ASSERT_OK(stream->Next());
  timer_.SleepFor(absl::Minutes(1));
  absl::StatusOr<std::optional<StateDictPiece>> piece = stream->Next();
  while (piece.ok() && piece->has_value()) piece = stream->Next();
  EXPECT_THAT(piece.status(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no answer")));
}

TEST_F(StateDictReadTest, MissingElementsAreNoticed) {
  const auto serve = connection_->readers[1].serve;
  int reads = 0;
  connection_->readers[1].serve = [&](v1::ReadStateRequest request) {
    if (++reads == 2) request.set_skip_bytes(8);
    return serve(request);
  };
  EXPECT_THAT(ReadStateDict(pull_.get(), {}, 0),
              StatusIs(absl::StatusCode::kInternal,
                       HasSubstr("parameter \"rows\": servers left out 8 bytes")));
}

// "cols" is cut through its rows.
TEST_F(StateDictReadTest, AStatePerRowComesOnceAndInItsOwnShape) {
  description_.states[0].extent = Extent::kRow;
  index_ = std::make_shared<const OptimizerIndex>(description_);
  dict_.state["rows"]["momentum_buffer"] = Floats({4, 1}, 300);
  dict_.state["cols"]["momentum_buffer"] = Floats({5, 1}, 400);
  dict_.state["none"]["momentum_buffer"] = Floats({0, 1}, 0);
  const std::string path = testing::TempDir() + "/rows.safetensors";
  ASSERT_OK_AND_ASSIGN(const StateDict read, ReadStateDict(pull_.get(), {}, 0));
  ExpectWhole(read);
  ASSERT_OK(SaveStateDictTo(pull_.get(), path, {}, 0));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source,
                       LoadSource::Open({path, ""}, *index_));
  for (const LoadSource::Tensor& tensor : source->tensors()) {
    if (tensor.parameter != "cols" || tensor.state != "momentum_buffer") continue;
    EXPECT_EQ(tensor.sizes, (Shape{5, 1}));
  }

  // A server that sends the rows' numbers beside the one that they are read from.
  std::vector<std::pair<v1::Slice, std::string>> slices;
  for (uint32_t shard = 2; shard < 4; ++shard) {
    slices.push_back(FloatSlice(shard, 0, {400, 401, 402, 403, 404}, 1));
  }
  for (int rank : {0, 1}) {
    const auto serve = connection_->readers[rank].serve;
    connection_->readers[rank].serve = [=, reads = 0](const auto& request) mutable {
      return ++reads == 1 ? serve(request) : ReadOf(snapshot_, {slices[rank]});
    };
  }
  StateDictOptions options;
  options.parts = {{"cols", "momentum_buffer", {}}};
  EXPECT_THAT(ReadStateDict(pull_.get(), options, 0),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("servers sent elements twice")));
}

TEST_F(StateDictReadTest, AStreamHoldsABoundedPartOfEachServer) {
  constexpr int64_t kRows = 64;
  description_ =
      Describe({{"table", DType::kFloat32, {2 * kRows, 65536}, Chunk{0, {{0}, {1}}}}}, 2);
  index_ = std::make_shared<const OptimizerIndex>(description_);
  snapshot_.set_plan_id(index_->plan_id());
  dict_ = {};
  dict_.parameters = {{"table", Floats({2 * kRows, 65536}, 0)}};
  Serve(/*frame_bytes=*/256 << 10);
  StateDictOptions options;
  options.state = false;
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<StateDictStream> stream,
      OpenStateDictStream(pull_.get(), options, 0, timer_.Now() + absl::Minutes(1)));
  EXPECT_THAT(closed_, SizeIs(0));
  uint64_t taken = 0;
  while (true) {
    uint64_t played = 0;
    for (const FakeReadServer& reader : connection_->readers) {
      played += static_cast<uint64_t>(reader.played) * (256 << 10);
    }
    ASSERT_LE(played, taken + 2 * (kMaxQueuedReadBytes + (1 << 20)));
    ASSERT_OK_AND_ASSIGN(const std::optional<StateDictPiece> piece, stream->Next());
    if (!piece) break;
    EXPECT_EQ(std::memcmp(dict_.parameters["table"].bytes.data() + piece->offset,
                          piece->bytes.data(), piece->bytes.size()),
              0);
    taken += piece->bytes.size();
  }
  EXPECT_EQ(taken, stream->total_bytes());
  EXPECT_THAT(closed_, ElementsAre(5));
  EXPECT_OK(stream->Next());
}

TEST_F(StateDictReadTest, AFileHasKeysGroupsAndTrainersAndReadsBackEqual) {
  const std::string path = testing::TempDir() + "/state_dict.safetensors";
  SaveOptions options;
  uint64_t done = 0;
  uint64_t total = 0;
  options.progress = [&](uint64_t d, uint64_t t) {
    done = d;
    total = t;
  };
  ASSERT_OK_AND_ASSIGN(const SaveResult saved, SaveStateDictTo(pull_.get(), path, options, 0));
  EXPECT_EQ(saved.version, 12u);
  EXPECT_EQ(done, saved.bytes);
  EXPECT_EQ(total, saved.bytes);
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader file,
                       SafetensorsReader::Open(PosixFileSystem(), path));
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : file.entries()) names.push_back(entry.name);
  EXPECT_THAT(names, testing::UnorderedElementsAre(
                         "model.rows", "model.cols", "model.bias", "model.none",
                         "optim.state.rows.momentum_buffer", "optim.state.rows.step",
                         "optim.state.cols.momentum_buffer", "optim.state.cols.step",
                         "optim.state.none.momentum_buffer", "optim.state.none.step"));
  EXPECT_EQ(file.metadata().at("format"), "pt");

  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source,
                       LoadSource::Open({path, ""}, *index_));
  EXPECT_EQ(source->version(), 12u);
  EXPECT_EQ(source->param_groups(), description_.groups);
  EXPECT_EQ(source->trainer_states(), (std::map<int, std::string>{{1, "batch 9"}}));
  ASSERT_THAT(source->tensors(), SizeIs(10));
  for (size_t i = 0; i < source->tensors().size(); ++i) {
    const LoadSource::Tensor& tensor = source->tensors()[i];
    const uint64_t bytes = static_cast<uint64_t>(NumBytes(tensor.sizes, tensor.dtype).value());
    std::shared_ptr<const void> owner;
    ASSERT_OK_AND_ASSIGN(const absl::string_view read, source->Read(i, 0, bytes, &owner));
    if (tensor.state == "step") {
      float step = 0;
      std::memcpy(&step, read.data(), sizeof(step));
      EXPECT_EQ(step, std::get<double>(dict_.state[tensor.parameter]["step"]));
      continue;
    }
    const HostTensor& expected =
        tensor.state.empty()
            ? dict_.parameters.at(tensor.parameter)
            : std::get<HostTensor>(dict_.state.at(tensor.parameter).at(tensor.state));
    EXPECT_EQ(read, absl::string_view(expected.bytes.data(), expected.bytes.size()));
  }
}

TEST_F(StateDictReadTest, ParametersOnlyHavePlainNames) {
  const std::string path = testing::TempDir() + "/parameters.safetensors";
  SaveOptions options;
  options.parameters_only = true;
  ASSERT_OK(SaveStateDictTo(pull_.get(), path, options, 0));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<LoadSource> source,
                       LoadSource::Open({path, ""}, *index_));
  ASSERT_THAT(source->tensors(), SizeIs(4));
  EXPECT_EQ(source->tensors()[0].parameter, "bias");
  EXPECT_EQ(source->tensors()[0].state, "");
  EXPECT_THAT(source->param_groups(), SizeIs(0));
}

}  // namespace
}  // namespace shardstep::internal
