#include "shardstep/server/rpc/read_plan.h"

#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

TEST(RunsTest, AreThoseOfForEachRun) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    const int dims = std::uniform_int_distribution<int>(0, 4)(random);
    Region block;
    Region part;
    for (int i = 0; i < dims; ++i) {
      const int64_t size = std::uniform_int_distribution<int64_t>(1, 4)(random);
      const int64_t begin = std::uniform_int_distribution<int64_t>(0, size - 1)(random);
      block.offsets.push_back(5 * i);
      block.sizes.push_back(size);
      part.offsets.push_back(5 * i + begin);
      part.sizes.push_back(std::uniform_int_distribution<int64_t>(1, size - begin)(random));
    }
    std::vector<int64_t> expected;
    ForEachRun(part, block, block, [&](int64_t offset, int64_t, int64_t count) {
      for (int64_t i = 0; i < count; ++i) expected.push_back(offset + i);
    });
    const Runs runs(part, block);
    std::vector<int64_t> elements;
    for (int64_t run = 0; run < runs.count(); ++run) {
      for (int64_t i = 0; i < runs.length(); ++i) elements.push_back(runs.Offset(run) + i);
    }
    EXPECT_EQ(elements, expected);
  }
}

TEST(RunsTest, AreAsLongAsTheyCanBe) {
  const Region block{{0, 0, 0}, {4, 6, 5}};
  EXPECT_EQ(Runs(block, block).count(), 1);
  EXPECT_EQ(Runs({{1, 0, 0}, {2, 6, 5}}, block).count(), 1);
  EXPECT_EQ(Runs({{1, 2, 0}, {2, 3, 5}}, block).count(), 2);
  EXPECT_EQ(Runs({{1, 2, 1}, {2, 3, 2}}, block).count(), 6);
}

// Three parameters on server 0 of 1: "w" [4,6] in two chunks, "big" of more than one frame, "none"
// without elements. State "exp_avg" of all, scalar "step" of "w". Element i is base + i.
class ReadPlanTest : public ::testing::Test {
 protected:
  static constexpr int64_t kBig = kDefaultFramePayloadBytes / 4 + 1000;

  ReadPlanTest() {
    OptimizerDescription description;
    OptimizerDefinition& definition = description.definition;
    definition.name = "m";
    definition.kind = "Adam";
    definition.parameters = {{"w", DType::kFloat32, {4, 6}, Chunk{0, {{0, "cpu"}, {0, "cpu"}}}},
                             {"big", DType::kFloat32, {kBig}, std::nullopt},
                             {"none", DType::kFloat32, {0, 3}, std::nullopt}};
    definition.sharded = {false, false, false};
    ParamGroup group;
    group.params = {"w", "big", "none"};
    definition.groups = {group};
    description.groups = definition.groups;
    description.plan = MakePlan(definition.parameters, 1).value();
    description.states = {{"step", StateSpec::Kind::kScalar, DType::kFloat32},
                          {"exp_avg", StateSpec::Kind::kLikeParameter, DType::kInvalid}};
    held_->version = 7;
    held_->lineage = 3;
    held_->kind = v1::EVERYTHING;
    held_->layout = Layout::Make(DescriptionToProto(description), 0).value();
    float base = 0;
    for (const LocalShardInfo& shard : held_->layout->local) {
      LocalState::Shard& state = held_->state.shards.emplace_back();
      state.parameter = shard.parameter;
      state.value = Tensor(shard.elements, base += 1000000);
      state.states = {{"exp_avg", Tensor(shard.elements, base += 1000000)}};
    }
    held_->state.scalars = {{{"step", 12, DType::kFloat32}}, {}, {}};
  }

  at::Tensor Tensor(int64_t elements, float base) {
    std::vector<float>& memory = memory_.emplace_back(elements);
    for (int64_t i = 0; i < elements; ++i) memory[i] = base + i;
    return at::from_blob(memory.data(), {elements});
  }

  struct Read {
    v1::ReadBegin begin;
    v1::ReadEnd end;
    std::vector<std::tuple<int, int, int64_t, int64_t>> slices;  // shard, tensor, offset, count
    std::vector<v1::Scalars::Scalar> scalars;
    std::vector<float> elements;
    std::vector<size_t> frame_bytes;
    uint64_t frames = 0;
    FrameDigest digest;
  };

  // All frames, decoded.
  absl::StatusOr<Read> Run(const v1::Selector& selector, uint64_t skip_bytes = 0) {
    auto plan = ReadPlan::Make(held_, selector, skip_bytes);
    if (!plan.ok()) return plan.status();
    Read read;
    while (!plan->done()) {
      const ReadPlan::Frame frame = plan->Next();
      std::vector<absl::string_view> pieces = {frame.prefix.bytes};
      pieces.insert(pieces.end(), frame.payload.begin(), frame.payload.end());
      const auto view = DecodeFrame(pieces);
      if (!view.ok()) return view.status();
      if (view->header.has_read_begin()) read.begin = view->header.read_begin();
      if (view->header.has_read_end()) read.end = view->header.read_end();
      if (!view->header.has_slices() && !view->header.has_scalars()) continue;
      ++read.frames;
      read.digest.Add(view->crc32c);
      for (const auto& scalar : view->header.scalars().scalars()) read.scalars.push_back(scalar);
      if (!view->header.has_slices()) continue;
      if (const absl::Status valid = CheckSlices(*view); !valid.ok()) return valid;
      for (const v1::Slice& slice : view->header.slices().slices()) {
        read.slices.emplace_back(slice.shard(), slice.tensor(), slice.offset(), slice.count());
      }
      const size_t old = read.elements.size();
      read.elements.resize(old + view->payload_bytes / 4);
      PayloadReader(*view).CopyTo(read.elements.data() + old, view->payload_bytes);
      read.frame_bytes.push_back(view->payload_bytes);
    }
    return read;
  }

  std::vector<std::vector<float>> memory_ = Reserved();
  std::shared_ptr<HeldVersion> held_ = std::make_shared<HeldVersion>();

 private:
  static std::vector<std::vector<float>> Reserved() {
    std::vector<std::vector<float>> memory;
    memory.reserve(16);  // tensors refer to what is in it
    return memory;
  }
};

v1::TensorSelector Named(const std::string& parameter, const std::string& state = "") {
  v1::TensorSelector selector;
  selector.set_parameter(parameter);
  selector.set_state(state);
  return selector;
}

TEST_F(ReadPlanTest, ParametersComeWholeAndPacked) {
  v1::Selector selector;
  selector.set_parameters(true);
  ASSERT_OK_AND_ASSIGN(const Read read, Run(selector));
  EXPECT_EQ(read.begin.version(), 7u);
  EXPECT_EQ(read.begin.lineage(), 3u);
  EXPECT_EQ(read.begin.plan_id(), held_->layout->plan.plan_id);
  EXPECT_EQ(read.begin.bytes(), (24 + kBig) * 4);
  const int64_t first = kDefaultFramePayloadBytes / 4 - 24;
  EXPECT_THAT(read.slices, ElementsAre(std::make_tuple(0, 0, 0, 12), std::make_tuple(1, 0, 0, 12),
                                       std::make_tuple(2, 0, 0, first),
                                       std::make_tuple(2, 0, first, kBig - first)));
  EXPECT_EQ(read.frame_bytes[0], kDefaultFramePayloadBytes);
  EXPECT_EQ(read.end.frames(), 2u);
  EXPECT_EQ(read.end.digest(), read.digest.value());
  EXPECT_TRUE(read.scalars.empty());
  std::vector<float> expected = memory_[0];
  for (int tensor : {2, 4}) {
    expected.insert(expected.end(), memory_[tensor].begin(), memory_[tensor].end());
  }
  EXPECT_EQ(read.elements, expected);
}

TEST_F(ReadPlanTest, StateBringsTensorsAndScalars) {
  v1::Selector selector;
  selector.set_state(true);
  *selector.add_tensors() = Named("w");
  ASSERT_OK_AND_ASSIGN(const Read read, Run(selector));
  EXPECT_THAT(read.slices, ElementsAre(std::make_tuple(0, 2, 0, 12), std::make_tuple(1, 2, 0, 12)));
  ASSERT_EQ(read.scalars.size(), 1u);
  EXPECT_EQ(read.scalars[0].parameter(), 0u);
  EXPECT_EQ(read.scalars[0].tensor(), 1u);
  EXPECT_EQ(read.scalars[0].value(), 12);
  EXPECT_EQ(read.end.frames(), 2u);
  EXPECT_EQ(read.end.digest(), read.digest.value());
}

TEST_F(ReadPlanTest, OneStateByName) {
  v1::Selector selector;
  selector.set_parameters(true);
  *selector.add_tensors() = Named("w", "exp_avg");
  ASSERT_OK_AND_ASSIGN(const Read read, Run(selector));
  EXPECT_THAT(read.slices, ElementsAre(std::make_tuple(0, 2, 0, 12), std::make_tuple(1, 2, 0, 12)));
  EXPECT_TRUE(read.scalars.empty());
}

TEST_F(ReadPlanTest, StateWithoutElementsIsNamed) {
  v1::Selector selector;
  selector.set_parameters(true);
  selector.set_state(true);
  *selector.add_tensors() = Named("none");
  ASSERT_OK_AND_ASSIGN(const Read read, Run(selector));
  EXPECT_THAT(read.slices, ElementsAre(std::make_tuple(3, 2, 0, 0)));
  EXPECT_EQ(read.begin.bytes(), 0u);
}

TEST_F(ReadPlanTest, ABlockIsRangesOfTheShards) {
  v1::Selector selector;
  selector.set_parameters(true);
  v1::TensorSelector* block = selector.add_tensors();
  *block = Named("w");
  for (int offset : {1, 2}) block->add_offsets(offset);
  // Row 1 is shard 0's second, row 2 shard 1's first.
  for (int size : {2, 3}) block->add_sizes(size);
  ASSERT_OK_AND_ASSIGN(const Read read, Run(selector));
  EXPECT_THAT(read.slices, ElementsAre(std::make_tuple(0, 0, 8, 3), std::make_tuple(1, 0, 2, 3)));
  EXPECT_EQ(read.begin.bytes(), 24u);
}

// "w" in two blocks of columns, with a state per row and one per column.
TEST_F(ReadPlanTest, WhatTwoShardsKeepComesOnce) {
  v1::Description description = held_->layout->description;
  v1::Plan* plan = description.mutable_plan();
  for (int shard : {0, 1}) {
    v1::Region* region = plan->mutable_shards(shard)->mutable_metadata()->mutable_region();
    region->set_offsets(0, 0);
    region->set_offsets(1, 3 * shard);
    region->set_sizes(0, 4);
    region->set_sizes(1, 3);
  }
  for (const auto& [name, extent] :
       {std::pair{"row_var", v1::StateSpec::ROW}, std::pair{"col_var", v1::StateSpec::COLUMN}}) {
    v1::StateSpec* state = description.add_states();
    state->set_name(name);
    state->set_extent(extent);
  }
  ASSERT_OK_AND_ASSIGN(held_->layout, Layout::Make(description, 0));
  const at::Tensor rows = Tensor(4, 100);
  for (int shard : {0, 1}) {
    held_->state.shards[shard].states.push_back({"row_var", rows});
    held_->state.shards[shard].states.push_back({"col_var", Tensor(3, 200 + 3 * shard)});
  }
  v1::Selector selector;
  selector.set_state(true);
  v1::TensorSelector* whole = selector.add_tensors();
  *whole = Named("w");
  ASSERT_OK_AND_ASSIGN(Read read, Run(selector));
  EXPECT_THAT(read.slices, ElementsAre(std::make_tuple(0, 2, 0, 12), std::make_tuple(0, 3, 0, 4),
                                       std::make_tuple(0, 4, 0, 3), std::make_tuple(1, 2, 0, 12),
                                       std::make_tuple(1, 4, 0, 3)));
  // A block of the parameter: of the states what belongs to its rows and columns.
  for (int offset : {1, 4}) whole->add_offsets(offset);
  for (int size : {2, 2}) whole->add_sizes(size);
  ASSERT_OK_AND_ASSIGN(read, Run(selector));
  EXPECT_THAT(read.slices, ElementsAre(std::make_tuple(0, 3, 1, 2), std::make_tuple(1, 2, 4, 2),
                                       std::make_tuple(1, 2, 7, 2), std::make_tuple(1, 4, 1, 2)));
  // A block of one state lies in its own shape.
  whole->set_state("row_var");
  EXPECT_THAT(Run(selector), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("state \"row_var\": block at [1,4] of [2,2] does "
                                                "not fit its shape [4,1]")));
  whole->set_offsets(1, 0);
  whole->set_sizes(1, 1);
  ASSERT_OK_AND_ASSIGN(read, Run(selector));
  EXPECT_THAT(read.slices, ElementsAre(std::make_tuple(0, 3, 1, 2)));
  EXPECT_THAT(read.elements, ElementsAre(101, 102));
}

TEST_F(ReadPlanTest, SkippingGoesOnWhereAnyFrameEnded) {
  v1::Selector selector;
  selector.set_parameters(true);
  selector.set_state(true);
  ASSERT_OK_AND_ASSIGN(const Read whole, Run(selector));
  for (const uint64_t skip : {uint64_t{0}, uint64_t{4}, uint64_t{48}, uint64_t{52}, uint64_t{96},
                              uint64_t{kDefaultFramePayloadBytes}, whole.begin.bytes()}) {
    ASSERT_OK_AND_ASSIGN(const Read rest, Run(selector, skip));
    EXPECT_EQ(rest.begin.bytes(), whole.begin.bytes() - skip);
    EXPECT_THAT(rest.elements,
                ElementsAreArray(whole.elements.begin() + skip / 4, whole.elements.end()));
    EXPECT_EQ(rest.scalars.size(), 1u);
  }
  EXPECT_THAT(Run(selector, 6), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("inside")));
  EXPECT_THAT(Run(selector, whole.begin.bytes() + 4),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bytes of payload")));
}

TEST_F(ReadPlanTest, RefusesWhatIsNotThere) {
  v1::Selector nothing;
  EXPECT_THAT(Run(nothing), StatusIs(absl::StatusCode::kInvalidArgument));
  const auto one = [](const v1::TensorSelector& tensor) {
    v1::Selector selector;
    selector.set_parameters(true);
    *selector.add_tensors() = tensor;
    return selector;
  };
  EXPECT_THAT(Run(one(Named("bug"))),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("did you mean \"big\"")));
  EXPECT_THAT(Run(one(Named("w", "exp_av"))),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("did you mean \"exp_avg\"")));
  v1::TensorSelector block = Named("w");
  block.add_offsets(3);
  block.add_sizes(1);
  EXPECT_THAT(Run(one(block)), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"w\"")));
  block.add_offsets(5);
  block.add_sizes(2);
  EXPECT_THAT(Run(one(block)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("does not fit")));
  block.set_offsets(0, -1);
  EXPECT_THAT(Run(one(block)), StatusIs(absl::StatusCode::kInvalidArgument));

  held_->kind = v1::PARAMETERS;
  v1::Selector state;
  state.set_state(true);
  EXPECT_THAT(Run(state), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Run(one(Named("w", "step"))), StatusIs(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace shardstep
