// A module in bfloat16 and one in float16 through the adapter, against the same steps on float32
// masters in this process.

#include <ATen/ops/add.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/client/torch_adapter.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

constexpr double kRate = 0.3;

struct Net : torch::nn::Module {
  explicit Net(at::ScalarType type)
      : half(register_parameter("half", at::linspace(-2, 3, 35).reshape({7, 5}).to(type))),
        full(register_parameter("full", at::linspace(1, 2, 4))) {}
  at::Tensor half;
  at::Tensor full;
};

class MastersTorchTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(MastersTorchTest, PushesAndPullsInTheModulesOwnDType) {
  MiniFleetOptions options;
  options.servers = 2;
  const auto fleet = MakeInProcessFleet(options);
  ASSERT_OK(fleet->Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet->fleet_file()));
  Net net(GetParam());
  ASSERT_OK_AND_ASSIGN(
      ShardedOptimizer optimizer,
      client.CreateOptimizer("m", NamedParameters(net), SGDOptions(kRate), Synchronous(1), 0));
  EXPECT_EQ(optimizer.named_params()[0].dtype, internal::ToDType(GetParam()));
  TorchAdapter adapter(optimizer, net);
  at::Tensor half = net.half.detach().to(at::kFloat);
  at::Tensor full = net.full.detach().clone();
  for (int step = 1; step <= 5; ++step) {
    const at::Tensor gradient = at::linspace(-0.1, 0.7 / step, 35).reshape({7, 5}).to(GetParam());
    net.half.mutable_grad() = gradient;
    net.full.mutable_grad() = at::full({4}, 0.1 * step);
    half.add_(gradient.to(at::kFloat), -kRate);
    full.add_(net.full.grad(), -kRate);
    ASSERT_OK(adapter.Step().status());
    EXPECT_EQ(net.half.scalar_type(), GetParam());
    EXPECT_TRUE(at::equal(net.half, half.to(GetParam()))) << step;
    EXPECT_TRUE(at::equal(net.full, full)) << step;
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, MastersTorchTest, testing::Values(at::kBFloat16, at::kHalf),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

}  // namespace
}  // namespace shardstep
