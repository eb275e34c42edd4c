// Dtypes, shapes and tensor views.
#include "shardstep/sharding/shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/tensor_view.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::HasSubstr;

constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(DTypeTest, NamesAndSizesArePyTorchs) {
  const struct {
    DType dtype;
    int number;
    const char* name;
    int64_t item_size;
  } rows[] = {
      {DType::kFloat32, 1, "float32", 4},
      {DType::kFloat64, 2, "float64", 8},
      {DType::kFloat16, 3, "float16", 2},
      {DType::kBFloat16, 4, "bfloat16", 2},
      {DType::kInt8, 5, "int8", 1},
      {DType::kUInt8, 6, "uint8", 1},
      {DType::kInt16, 7, "int16", 2},
      {DType::kInt32, 8, "int32", 4},
      {DType::kInt64, 9, "int64", 8},
      {DType::kBool, 10, "bool", 1},
      {DType::kComplex64, 11, "complex64", 8},
      {DType::kComplex128, 12, "complex128", 16},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(static_cast<int>(row.dtype), row.number);
    EXPECT_EQ(DTypeName(row.dtype), row.name);
    EXPECT_EQ(ItemSize(row.dtype), row.item_size) << row.name;
    EXPECT_THAT(ParseDType(row.name), IsOkAndHolds(row.dtype));
  }
}

TEST(DTypeTest, RefusesWhatIsNone) {
  EXPECT_EQ(ItemSize(DType::kInvalid), 0);
  EXPECT_EQ(ItemSize(static_cast<DType>(200)), 0);
  EXPECT_EQ(DTypeName(static_cast<DType>(13)), "invalid");
  EXPECT_THAT(ParseDType("invalid"), StatusIs(kInvalidArgument));
  EXPECT_THAT(ParseDType("f32\n"),
              StatusIs(kInvalidArgument,
                       HasSubstr("dtype \"f32\\n\": unknown, expected one of float32, float64,")));
}

TEST(ShapeTest, CountsElementsAndBytes) {
  EXPECT_THAT(NumElements({}), IsOkAndHolds(1));
  EXPECT_THAT(NumElements({128, 64}), IsOkAndHolds(128 * 64));
  EXPECT_THAT(NumElements({3, 0, 5}), IsOkAndHolds(0));
  EXPECT_THAT(NumElements({1, 1, 1, 1, 1, 1, 1, 7}), IsOkAndHolds(7));
  EXPECT_THAT(NumElements({kMax}), IsOkAndHolds(kMax));
  for (const Shape& sizes : {Shape{}, Shape{128, 64}, Shape{3, 0, 5}, Shape{kMax}}) {
    EXPECT_THAT(NumElements(sizes), IsOkAndHolds(ElementCount(sizes)));
  }
  EXPECT_THAT(NumBytes({3, 5}, DType::kFloat64), IsOkAndHolds(120));
  EXPECT_THAT(NumBytes({}, DType::kBFloat16), IsOkAndHolds(2));
}

TEST(ShapeTest, RefusesWhatNoTensorCanHave) {
  EXPECT_THAT(NumElements({1, 1, 1, 1, 1, 1, 1, 1, 1}),
              StatusIs(kInvalidArgument, "shape has 9 dimensions, expected at most 8"));
  EXPECT_THAT(NumElements({2, -3}), StatusIs(kInvalidArgument, "shape [2,-3]: negative size -3"));
  EXPECT_THAT(NumElements({0, -1}), StatusIs(kInvalidArgument));
  EXPECT_THAT(NumElements({int64_t{1} << 32, int64_t{1} << 31}),
              StatusIs(kInvalidArgument, HasSubstr("number of elements exceeds 64 bits")));
  // Its strides would overflow, although it has no elements.
  EXPECT_THAT(NumElements({0, kMax, 2}), StatusIs(kInvalidArgument));
  EXPECT_THAT(NumBytes({kMax / 4 + 1}, DType::kFloat32),
              StatusIs(kInvalidArgument, HasSubstr("of float32: bytes exceed 64 bits")));
  EXPECT_THAT(NumBytes({2}, DType::kInvalid), StatusIs(kInvalidArgument, "dtype: invalid"));
}

TEST(ShapeTest, Prints) {
  EXPECT_EQ(ShapeToString({128, 64}), "[128,64]");
  EXPECT_EQ(ShapeToString({}), "[]");
}

TEST(TensorViewTest, MakesViewsOfFloatsAndDoubles) {
  std::vector<float> floats(6);
  const std::vector<double> doubles(4);
  const TensorView view = MakeTensorView(floats.data(), {2, 3});
  EXPECT_EQ(view.data, floats.data());
  EXPECT_EQ(view.dtype, DType::kFloat32);
  EXPECT_EQ(view.num_elements(), 6);
  EXPECT_EQ(view.num_bytes(), 24);
  const ConstTensorView same = view;
  EXPECT_EQ(same.data, floats.data());
  EXPECT_EQ(same.sizes, (Shape{2, 3}));
  const ConstTensorView constant = MakeTensorView(doubles.data(), {4});
  EXPECT_EQ(constant.dtype, DType::kFloat64);
  EXPECT_EQ(constant.num_bytes(), 32);
}

TEST(TensorViewTest, ValidatesDataDtypeAndSizes) {
  float value = 0;
  EXPECT_OK(MakeTensorView(&value, {}).Validate());
  EXPECT_OK(MakeTensorView(static_cast<float*>(nullptr), {0, 3}).Validate());
  EXPECT_THAT(MakeTensorView(static_cast<float*>(nullptr), {1, 3}).Validate(),
              StatusIs(kInvalidArgument, "tensor [1,3]: data is null"));
  EXPECT_THAT(ConstTensorView().Validate(), StatusIs(kInvalidArgument, "dtype: invalid"));
  const TensorView negative = MakeTensorView(&value, {-1});
  EXPECT_THAT(negative.Validate(), StatusIs(kInvalidArgument));
  EXPECT_EQ(negative.num_elements(), 0);
  EXPECT_EQ(negative.num_bytes(), 0);
}

}  // namespace
}  // namespace shardstep
