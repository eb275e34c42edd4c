// Clip coefficients against an oracle of exact sums, over random ways to cut the gradient.

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "shardstep/optim/reduction.h"
#include "shardstep/optim/squared_norm.h"
#include "shardstep/tests/golden/golden_file.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

constexpr int kCuts = 1000;

double FromHex(const nlohmann::ordered_json& json) {
  return std::strtod(json.get<std::string>().c_str(), nullptr);
}

// generate.py's clip_elements().
at::Tensor ClipElements(int64_t count, at::ScalarType dtype) {
  const std::vector<double> values = Draw(77, count, dtype);
  at::Tensor tensor = at::empty({count}, at::TensorOptions().dtype(at::kDouble));
  double* elements = tensor.mutable_data_ptr<double>();
  for (int64_t i = 0; i < count; ++i) {
    elements[i] = std::ldexp(values[i], static_cast<int>(i % 40) - 20);
  }
  return tensor.to(dtype);
}

SquaredNorm ReduceShard(const at::Tensor& gradient) {
  absl::StatusOr<Reduction> reduction =
      Reduction::Create({{gradient}}, gradient.scalar_type(), gradient.numel(), {});
  EXPECT_OK(reduction);
  for (size_t i = 0; i < reduction->num_blocks(); ++i) reduction->RunBlock(i);
  absl::StatusOr<ReducedGradient> reduced = reduction->Finish();
  EXPECT_OK(reduced);
  EXPECT_TRUE(reduced->finite);
  return reduced->squares;
}

class ClipTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(ClipTest, ThousandCutsGiveTheOraclesCoefficient) {
  const bool float64 = GetParam() == at::kDouble;
  const nlohmann::ordered_json json = ReadGoldenJson("clip.json");
  const nlohmann::ordered_json& golden = json[float64 ? "float64" : "float32"];
  const at::Tensor gradient = ClipElements(json["elements"], GetParam());
  std::mt19937_64 random(1);
  for (int cut = 0; cut < kCuts; ++cut) {
    std::vector<int64_t> cuts = {0, gradient.numel()};
    const int extra = static_cast<int>(random() % 60);
    for (int i = 0; i < extra; ++i) cuts.push_back(random() % (gradient.numel() + 1));
    std::sort(cuts.begin(), cuts.end());
    SquaredNorm total;
    for (size_t i = 1; i < cuts.size(); ++i) {
      total = Sum(total, ReduceShard(gradient.narrow(0, cuts[i - 1], cuts[i] - cuts[i - 1])));
    }
    const double norm = Norm(total, float64);
    ASSERT_EQ(norm, FromHex(golden["norm"])) << "cut " << cut;
    for (const auto& expected : golden["coefficients"]) {
      ASSERT_EQ(ClipCoefficient(norm, expected["max_norm"], float64),
                FromHex(expected["coefficient"]))
          << "cut " << cut << ", max_norm " << expected["max_norm"];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, ClipTest, testing::Values(at::kFloat, at::kDouble));

}  // namespace
}  // namespace shardstep
