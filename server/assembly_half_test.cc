// What arrives in a parameter's declared dtype, or in its master's.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/server/assembly.h"
#include "shardstep/sharding/half_floats.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/frame.h"

namespace shardstep {
namespace {

constexpr int64_t kElements = 23;

// "h" of `dtype`, whole on one server, with state "exp_avg" and a master.
std::shared_ptr<const Layout> MakeLayout(v1::DType dtype) {
  v1::Description description;
  v1::OptimizerDefinition* definition = description.mutable_definition();
  definition->set_name("m");
  definition->set_kind("Adam");
  definition->mutable_mode()->mutable_synchronous()->set_trainers(1);
  v1::Parameter* parameter = definition->add_parameters();
  parameter->set_name("h");
  parameter->set_dtype(dtype);
  parameter->add_sizes(kElements);
  definition->add_groups()->add_parameters(0);
  *description.mutable_groups() = definition->groups();
  description.mutable_plan()->set_plan_id("p");
  v1::PlannedShard* shard = description.mutable_plan()->add_shards();
  shard->mutable_metadata()->mutable_region()->add_offsets(0);
  shard->mutable_metadata()->mutable_region()->add_sizes(kElements);
  shard->mutable_metadata()->set_device("cpu");
  description.add_states()->set_name("exp_avg");
  description.add_states()->set_name("master");
  return Layout::Make(description, 0).value();
}

std::vector<float> Values() {
  std::vector<float> values;
  for (int i = 0; i < kElements; ++i) values.push_back(std::ldexp(1 + 0.03f * i, i - 20));
  values[3] = -0.0f;
  values[4] = std::numeric_limits<float>::infinity();
  values[5] = std::numeric_limits<float>::quiet_NaN();
  return values;
}

// Slices of one shard, one behind the other, in one frame.
class Sender {
 public:
  void Add(uint64_t offset, uint64_t count, DType dtype, absl::string_view bytes,
           uint32_t tensor = 0) {
    v1::Slice* slice = view_.header.mutable_slices()->add_slices();
    slice->set_offset(offset);
    slice->set_count(count);
    slice->set_dtype(static_cast<v1::DType>(dtype));
    slice->set_tensor(tensor);
    payload_.append(bytes.data(), bytes.size());
  }
  // The payload in pieces of `length`.
  FrameView Frame(size_t length) {
    view_.payload.clear();
    view_.payload_bytes = payload_.size();
    for (size_t at = 0; at < payload_.size(); at += length) {
      view_.payload.push_back(absl::string_view(payload_).substr(at, length));
    }
    return view_;
  }

 private:
  FrameView view_;
  std::string payload_;
};

std::string Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

class AssemblyHalfTest : public testing::TestWithParam<DType> {
 protected:
  std::string Narrowed(const std::vector<float>& values) const {
    std::string bytes(2 * values.size(), '\0');
    Narrow(GetParam(), values.data(), static_cast<int64_t>(values.size()), bytes.data());
    return bytes;
  }
  std::vector<float> Rounded(const std::vector<float>& values) const {
    std::vector<float> rounded(values.size());
    Widen(GetParam(), Narrowed(values).data(), static_cast<int64_t>(values.size()), rounded.data());
    return rounded;
  }

  MemoryBudget budget_{1 << 20};
  std::shared_ptr<const Layout> layout_ = MakeLayout(static_cast<v1::DType>(GetParam()));
};

void ExpectHolds(const at::Tensor& buffer, const std::vector<float>& expected) {
  ASSERT_EQ(buffer.scalar_type(), at::kFloat);
  ASSERT_EQ(buffer.nbytes(), expected.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(buffer.const_data_ptr(), expected.data(), buffer.nbytes()), 0);
}

TEST_P(AssemblyHalfTest, TheDeclaredDTypeIsWidenedHoweverThePiecesAreCut) {
  const std::string bytes = Narrowed(Values());
  for (size_t length = 1; length <= bytes.size(); ++length) {
    Assembly assembly(layout_, &budget_);
    Sender sender;
    // In another order, at odd elements.
    sender.Add(9, kElements - 9, GetParam(), absl::string_view(bytes).substr(18));
    sender.Add(0, 9, GetParam(), absl::string_view(bytes).substr(0, 18));
    ASSERT_OK(assembly.Apply(sender.Frame(length))) << length;
    ASSERT_NO_FATAL_FAILURE(ExpectHolds(assembly.buffer(0), Rounded(Values()))) << length;
    EXPECT_EQ(budget_.used(), kElements * 4);
  }
}

TEST_P(AssemblyHalfTest, TheMasterDTypeIsTakenAsItIsAndBothMayMix) {
  std::vector<float> expected = Values();
  const std::vector<float> rounded = Rounded(expected);
  std::copy(rounded.begin(), rounded.begin() + 7, expected.begin());
  Assembly assembly(layout_, &budget_);
  Sender sender;
  sender.Add(0, 7, GetParam(), absl::string_view(Narrowed(Values())).substr(0, 14));
  sender.Add(7, kElements - 7, DType::kFloat32, absl::string_view(Bytes(Values())).substr(28));
  ASSERT_OK(assembly.Apply(sender.Frame(5)));
  ExpectHolds(assembly.buffer(0), expected);
}

TEST_P(AssemblyHalfTest, StateAndMasterAreKeptInFloat32) {
  Assembly assembly(layout_, &budget_, Assembly::Takes::kParametersAndState);
  Sender sender;
  sender.Add(0, kElements, GetParam(), Narrowed(Values()), 1);
  sender.Add(0, kElements, DType::kFloat32, Bytes(Values()), layout_->master);
  ASSERT_OK(assembly.Apply(sender.Frame(7)));
  ExpectHolds(assembly.buffer(0, 1), Rounded(Values()));
  ExpectHolds(assembly.buffer(0, 2), Values());
}

TEST_P(AssemblyHalfTest, AnotherDTypeIsRefused) {
  Assembly assembly(layout_, &budget_);
  const DType other = GetParam() == DType::kFloat16 ? DType::kBFloat16 : DType::kFloat16;
  Sender sender;
  sender.Add(0, kElements, other, Narrowed(Values()));
  EXPECT_THAT(assembly.Apply(sender.Frame(64)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       absl::StrCat("slice [0, +23) of shard 0 of parameter \"h\": expected dtype ",
                                    DTypeName(GetParam()), " or float32, got ",
                                    v1::DType_Name(static_cast<v1::DType>(other)))));
  EXPECT_EQ(budget_.used(), 0);
}

INSTANTIATE_TEST_SUITE_P(DTypes, AssemblyHalfTest,
                         testing::Values(DType::kBFloat16, DType::kFloat16));

}  // namespace
}  // namespace shardstep
