#include "shardstep/server/assembly.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/string_view.h"
#include "shardstep/server/column_layout.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AssemblyTest : public ::testing::Test {
 protected:
  // Elements of float64, from `offset` on.
  absl::Status Apply(uint32_t shard, uint32_t tensor, uint64_t offset,
                     const std::vector<double>& values, v1::DType dtype = v1::FLOAT64) {
    v1::FrameHeader header;
    v1::Slice* slice = header.mutable_slices()->add_slices();
    slice->set_shard(shard);
    slice->set_tensor(tensor);
    slice->set_offset(offset);
    slice->set_count(values.size());
    slice->set_dtype(dtype);
    const absl::string_view payload(reinterpret_cast<const char*>(values.data()),
                                    values.size() * sizeof(double));
    const FramePrefix prefix = EncodeFramePrefix(header, {payload});
    return assembly_.Apply(*DecodeFrame({prefix.bytes, payload}));
  }
  std::vector<double> Buffer(size_t local, uint32_t tensor) {
    const at::Tensor& buffer = assembly_.buffer(local, tensor);
    const auto* const data = static_cast<const double*>(buffer.data_ptr());
    return std::vector<double>(data, data + buffer.numel());
  }

  MemoryBudget memory_{100};
  // Shards 0 and 2 are local, of 6 x 2 and of 6 x 1.
  Assembly assembly_{ColumnLayout(1), &memory_, Assembly::Takes::kParametersAndState};
};

TEST_F(AssemblyTest, AStatePerRowTakesWhatItsPartHas) {
  ASSERT_OK(Apply(2, 1, 4, {5, 6}));
  EXPECT_EQ(memory_.used(), 48);
  ASSERT_OK(Apply(2, 1, 1, {2}));
  assembly_.ZeroGaps();
  EXPECT_THAT(Buffer(1, 1), ElementsAre(0, 2, 0, 0, 5, 6));
  ASSERT_OK(Apply(0, 2, 0, {7, 8}));
  EXPECT_THAT(Buffer(0, 2), ElementsAre(7, 8));
  EXPECT_EQ(memory_.used(), 64);
  EXPECT_EQ(assembly_.coverage(0, 2).size(), 2);
  ASSERT_OK(assembly_.Claim(1, 2).status());
  EXPECT_EQ(assembly_.buffer(1, 2).numel(), 1);
  EXPECT_EQ(assembly_.coverage(1, 2).size(), 1);
  EXPECT_EQ(memory_.used(), 72);
}

TEST_F(AssemblyTest, WhatIsBeyondThePartIsRefused) {
  const auto refused = [](const char* what) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what));
  };
  // The shard's value has 12 elements.
  EXPECT_THAT(Apply(0, 1, 5, {1, 2}), refused("the shard has 6 elements of \"row_var\""));
  EXPECT_THAT(Apply(0, 1, 7, {}), refused("the shard has 6 elements of \"row_var\""));
  EXPECT_THAT(Apply(0, 2, 0, {1, 2, 3}), refused("the shard has 2 elements of \"col_var\""));
  EXPECT_THAT(Apply(0, 0, 12, {1}), refused("the shard has 12 elements"));
  EXPECT_THAT(Apply(0, 4, 0, {1}), refused("tensor 4, expected at most 3"));
  EXPECT_THAT(Apply(0, 1, 0, {1}, v1::COMPLEX64), refused("expected dtype float64"));
  ASSERT_OK(Apply(0, 1, 0, {1, 2}));
  EXPECT_THAT(Apply(0, 1, 1, {1, 2}), refused("overlaps"));
  EXPECT_EQ(memory_.used(), 48);
  EXPECT_THAT(Apply(0, 0, 0, {1}), StatusIs(absl::StatusCode::kResourceExhausted,
                                            HasSubstr("no memory for 96 bytes, 48 of 100")));
}

}  // namespace
}  // namespace shardstep
