// What a read brings of parameters that have a master: rounded, and as it is.

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/server/rpc/read_plan.h"
#include "shardstep/sharding/half_floats.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

// "h" of bfloat16 in more than one frame and "f" of float32, with "exp_avg" and the master.
class ReadPlanMastersTest : public testing::Test {
 protected:
  static constexpr int64_t kElements = kDefaultFramePayloadBytes / 2 + 777;

  ReadPlanMastersTest() {
    OptimizerDescription description;
    OptimizerDefinition& definition = description.definition;
    definition.name = "m";
    definition.kind = "Adam";
    definition.parameters = {{"f", DType::kFloat32, {3}, std::nullopt},
                             {"h", DType::kBFloat16, {kElements}, Whole{0}}};
    definition.sharded = {false, false};
    ParamGroup group;
    group.params = {"f", "h"};
    definition.groups = description.groups = {group};
    description.plan = MakePlan(definition.parameters, 1).value();
    description.states = {StateSpec::Tensor("exp_avg"), StateSpec::Tensor(kMasterState)};
    held_->kind = v1::EVERYTHING;
    held_->layout = Layout::Make(DescriptionToProto(description), 0).value();
    for (int64_t i = 0; i < kElements; ++i) master_.push_back(1 + 0.001f * i);
    for (std::vector<float>* const values : {&float_, &master_}) {
      LocalState::Shard& shard = held_->state.shards.emplace_back();
      shard.parameter = static_cast<int>(held_->state.shards.size()) - 1;
      shard.value = at::from_blob(values->data(), {static_cast<int64_t>(values->size())});
      shard.states = {{"exp_avg", shard.value}};
    }
    held_->state.scalars.resize(2);
  }

  struct Read {
    uint64_t bytes = 0;
    std::string payload;
    std::vector<v1::Slice> slices;
  };
  Read Run(const v1::Selector& selector, uint64_t skip_bytes = 0) {
    Read read;
    std::vector<ReadPlan::Frame> frames;  // as gRPC does, which sends later
    ReadPlan plan = ReadPlan::Make(held_, selector, skip_bytes).value();
    while (!plan.done()) frames.push_back(plan.Next());
    for (const ReadPlan::Frame& frame : frames) {
      std::vector<absl::string_view> pieces = {frame.prefix.bytes};
      pieces.insert(pieces.end(), frame.payload.begin(), frame.payload.end());
      const FrameView view = DecodeFrame(pieces).value();
      EXPECT_OK(CheckSlices(view));
      EXPECT_LE(view.payload_bytes, static_cast<size_t>(kDefaultFramePayloadBytes));
      read.bytes += view.header.read_begin().bytes();
      for (const v1::Slice& slice : view.header.slices().slices()) read.slices.push_back(slice);
      for (absl::string_view piece : view.payload) read.payload.append(piece.data(), piece.size());
    }
    return read;
  }

  static std::string BytesOf(const std::vector<float>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
  }
  std::string Rounded() const {
    std::string bytes(2 * master_.size(), '\0');
    Narrow(DType::kBFloat16, master_.data(), kElements, bytes.data());
    return bytes;
  }

  std::vector<float> float_ = {1.5f, -2.25f, 1.0f / 3};
  std::vector<float> master_;
  std::shared_ptr<HeldVersion> held_ = std::make_shared<HeldVersion>();
};

TEST_F(ReadPlanMastersTest, AParameterComesInItsDeclaredDType) {
  v1::Selector selector;
  selector.set_parameters(true);
  const Read read = Run(selector);
  EXPECT_EQ(read.payload, BytesOf(float_) + Rounded());
  EXPECT_EQ(read.bytes, read.payload.size());
  ASSERT_GE(read.slices.size(), 3u);
  EXPECT_EQ(read.slices[0].dtype(), v1::FLOAT32);
  EXPECT_EQ(read.slices[1].dtype(), v1::BFLOAT16);
  EXPECT_EQ(read.slices[1].tensor(), 0u);
}

TEST_F(ReadPlanMastersTest, AReadThatBrokeOffGoesOnAtAnyElement) {
  v1::Selector selector;
  selector.set_parameters(true);
  const std::string whole = BytesOf(float_) + Rounded();
  for (const uint64_t skip : {12, 14, 16, 2000, 524288, 524290}) {
    const Read read = Run(selector, skip);
    EXPECT_EQ(read.payload, whole.substr(skip)) << skip;
  }
  EXPECT_THAT(ReadPlan::Make(held_, selector, 13).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "skip_bytes: ends inside an element"));
}

TEST_F(ReadPlanMastersTest, StateAndMasterComeInFloat32) {
  v1::Selector selector;
  selector.set_state(true);
  selector.add_tensors()->set_parameter("h");
  const Read read = Run(selector);
  EXPECT_EQ(read.payload, BytesOf(master_) + BytesOf(master_));
  EXPECT_EQ(read.slices.front().tensor(), 1u);
  EXPECT_EQ(read.slices.back().tensor(), 2u);
  for (const v1::Slice& slice : read.slices) EXPECT_EQ(slice.dtype(), v1::FLOAT32);
}

TEST_F(ReadPlanMastersTest, TheMasterHasAName) {
  v1::Selector selector;
  selector.add_tensors()->set_parameter("h");
  selector.mutable_tensors(0)->set_state("master");
  selector.mutable_tensors(0)->add_offsets(5);
  selector.mutable_tensors(0)->add_sizes(2);
  EXPECT_EQ(Run(selector).payload, BytesOf({master_[5], master_[6]}));
}

TEST_F(ReadPlanMastersTest, AFloat32ParameterHasNone) {
  v1::Selector selector;
  selector.set_state(true);
  selector.add_tensors()->set_parameter("f");
  EXPECT_EQ(Run(selector).payload, BytesOf(float_));  // exp_avg
}

}  // namespace
}  // namespace shardstep
