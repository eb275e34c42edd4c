#include "shardstep/client/torch_adapter.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/sparse_coo_tensor.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <cstring>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/client/optimizer_core.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::NiceMock;
using ::testing::SizeIs;

struct Net : torch::nn::Module {
  at::Tensor forward(const at::Tensor& x) { return second(first(x)); }

  torch::nn::Linear first = register_module("first", torch::nn::Linear(2, 2));
  torch::nn::Linear second = register_module("second", torch::nn::Linear(2, 2));
};

// A module's own parameters come before those of its children.
struct TiedNet : Net {
  TiedNet() { register_parameter("tied", first->weight); }
};

std::vector<std::string> Names(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

TEST(NamedParametersTest, GivesEachTensorOnceUnderItsFirstNameAndInPlace) {
  const Net net;
  const std::vector<NamedTensor> named = NamedParameters(net);
  EXPECT_THAT(Names(named),
              ElementsAre("first.weight", "first.bias", "second.weight", "second.bias"));
  EXPECT_EQ(named[0].value.data, net.first->weight.data_ptr());
  EXPECT_EQ(named[0].value.sizes, (Shape{2, 2}));
  EXPECT_EQ(named[0].value.dtype, DType::kFloat32);
  EXPECT_THAT(
      Names(NamedParameters(net, "net")),
      ElementsAre("net.first.weight", "net.first.bias", "net.second.weight", "net.second.bias"));
  EXPECT_THAT(Names(NamedParameters(TiedNet())),
              ElementsAre("tied", "first.bias", "second.weight", "second.bias"));
  EXPECT_THAT(NamedParameters(net, "", /*recurse=*/false), SizeIs(0));
}

TEST(NamedParametersTest, WhatIsNotContiguousIsGivenAsACopyThatLives) {
  Net net;
  net.first->weight.set_data(at::ones({2, 2}).mul(3.0).t());
  net.first->bias.set_data(at::ones({4}).slice(0, 0, 4, 2));
  const std::vector<NamedTensor> named = NamedParameters(net);
  EXPECT_NE(named[1].value.data, net.first->bias.data_ptr());
  EXPECT_EQ(static_cast<const float*>(named[1].value.data)[1], 1.0f);
}

// One server and one trainer; every pull reads the value 7 everywhere.
class TorchAdapterTest : public testing::Test {
 protected:
  TorchAdapterTest() {
    std::vector<ParameterShape> parameters;
    for (const NamedTensor& tensor : NamedParameters(net_)) {
      parameters.push_back({tensor.name, tensor.value.dtype, tensor.value.sizes, Whole{0}});
    }
    internal::DescribedOptimizer described;
    described.description = internal::Describe(std::move(parameters), 1);
    description_ = described.description;
    auto connection = std::make_unique<NiceMock<internal::MockConnection>>(
        std::make_shared<const internal::OptimizerIndex>(described.description), 1);
    connection_ = connection.get();
    const auto client = internal::MakeCore(std::move(connection), &timer_);
    v1::OpenSessionReply opened;
    opened.set_session(1);
    opened.set_lease_ms(30000);
    ON_CALL(*connection_, OpenSession).WillByDefault(testing::Return(opened));
    ON_CALL(*connection_, CloseSession).WillByDefault(testing::Return(v1::CloseSessionReply()));
    ON_CALL(*connection_, CloseSnapshot).WillByDefault(testing::Return(v1::CloseSnapshotReply()));
    snapshot_.set_snapshot(5);
    snapshot_.set_version(1);
    snapshot_.set_plan_id(described.description.plan.plan_id);
    snapshot_.set_lease_ms(30000);
    snapshot_.set_kind(v1::PARAMETERS);
    ON_CALL(*connection_, OpenSnapshot).WillByDefault([this] {
      v1::OpenSnapshotReply reply;
      *reply.mutable_snapshot() = snapshot_;
      return reply;
    });
    ON_CALL(*connection_, Step).WillByDefault([this](const v1::StepRequest& request, absl::Time) {
      requests_.push_back(request);
      if (!step_error_.ok()) return absl::StatusOr<v1::StepReply>(step_error_);
      v1::StepReply reply;
      reply.mutable_committed()->set_version(1);
      *reply.mutable_committed()->mutable_snapshot() = snapshot_;
      return absl::StatusOr<v1::StepReply>(reply);
    });
    for (int i = 0; i < 4; ++i) {
      connection_->readers[0].scripts.push_back(internal::ReadOf(
          snapshot_,
          {internal::FloatSlice(0, 0, {7, 7, 7, 7}), internal::FloatSlice(1, 0, {7, 7}),
           internal::FloatSlice(2, 0, {7, 7, 7, 7}), internal::FloatSlice(3, 0, {7, 7})}));
    }
    auto session =
        internal::Session::Open(client, "digits", 0, {}, timer_.Now() + absl::Seconds(1)).value();
    optimizer_.emplace(std::make_unique<internal::OptimizerCore>(
        client, std::move(session), std::move(described), internal::DeclaredRegions(4)));
  }

  void Backward() { net_.forward(at::ones({1, 2})).sum().backward(); }

  // What the server has of the push's shard, as floats.
  std::vector<float> Received(size_t push, uint32_t shard) {
    const std::string& bytes = server().received.at(push).shards.at(shard);
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  internal::FakeServer& server() { return *connection_->servers[0]; }

  Net net_;
  internal::FakeTimer timer_;
  NiceMock<internal::MockConnection>* connection_ = nullptr;
  OptimizerDescription description_;
  v1::Snapshot snapshot_;
  absl::Status step_error_;
  std::vector<v1::StepRequest> requests_;
  std::optional<ShardedOptimizer> optimizer_;
};

TEST_F(TorchAdapterTest, PullFillsTheModuleInPlace) {
  TorchAdapter model(*optimizer_, net_);
  const void* const memory = net_.first->weight.data_ptr();
  const uint32_t autograd_version = net_.first->weight._version();
  ASSERT_OK(model.Pull());
  EXPECT_EQ(net_.first->weight.data_ptr(), memory);
  EXPECT_EQ(net_.first->weight.sum().item<float>(), 28.0f);
  EXPECT_EQ(net_.second->bias[1].item<float>(), 7.0f);
  // Autograd must notice that saved tensors have changed.
  EXPECT_GT(net_.first->weight._version(), autograd_version);
}

TEST_F(TorchAdapterTest, StepPushesTheGradientsTakesThemOutAndPulls) {
  TorchAdapter model(*optimizer_, net_);
  Backward();
  const at::Tensor gradient = net_.first->weight.grad().clone();
  net_.first->bias.mutable_grad() = at::Tensor();  // None
  ASSERT_OK_AND_ASSIGN(const StepResult result, model.Step());
  EXPECT_EQ(result.version, 1u);
  ASSERT_THAT(server().received, SizeIs(1));
  EXPECT_EQ(Received(0, 0), std::vector<float>(gradient.data_ptr<float>(),
                                               gradient.data_ptr<float>() + gradient.numel()));
  EXPECT_EQ(server().received[0].end.touched(), std::string("\x0d"));
  EXPECT_TRUE(server().received[0].begin.last());
  EXPECT_FALSE(net_.first->weight.grad().defined());
  EXPECT_EQ(net_.second->bias[0].item<float>(), 7.0f);
}

TEST_F(TorchAdapterTest, GradientsLiveUntilTheStepThatConsumesThemIsOver) {
  TorchAdapter model(*optimizer_, net_);
  Backward();
  const at::Tensor gradient = net_.first->weight.grad();
  const size_t users = gradient.use_count();
  step_error_ = absl::UnavailableError("server 0: connection refused");
  EXPECT_FALSE(model.Step().ok());
  EXPECT_FALSE(net_.first->weight.grad().defined());
  EXPECT_GE(gradient.storage().use_count(), 2u);  // the push still has it
  step_error_ = absl::OkStatus();
  ASSERT_OK(model.Step());
  EXPECT_EQ(gradient.storage().use_count(), 1u);
  EXPECT_GE(users, 1u);
  EXPECT_THAT(server().received, SizeIs(1));
}

TEST_F(TorchAdapterTest, ASparseGradientIsPushedAsRows) {
  TorchAdapter model(*optimizer_, net_);
  const at::Tensor numbers = at::tensor({1, 0, 1}, at::TensorOptions().dtype(at::kLong));
  const at::Tensor values = at::tensor({1.0f, 2.0f, 3.0f, 4.0f, 10.0f, 20.0f}).view({3, 2});
  const at::TensorOptions sparse = values.options().layout(at::kSparse);
  // As nn::Embedding(sparse=True) makes it: not coalesced.
  net_.first->weight.mutable_grad() =
      at::sparse_coo_tensor(numbers.view({1, 3}), values, {2, 2}, sparse);
  ASSERT_OK(model.Step());
  ASSERT_THAT(server().received, SizeIs(1));
  const internal::ReceivedTensors& push = server().received[0];
  EXPECT_EQ(push.end.touched(), std::string(1, 1));
  EXPECT_EQ(push.end.rows(), std::string(1, 1));
  // Three rows would be more than the parameter has: they came summed.
  const auto& [rows, elements] = push.rows.at(0);
  EXPECT_THAT(rows, ElementsAre(1, 0));
  std::vector<float> sums(4);
  ASSERT_EQ(elements.size(), 16u);
  std::memcpy(sums.data(), elements.data(), elements.size());
  EXPECT_THAT(sums, ElementsAre(11, 22, 3, 4));

  net_.first->weight.mutable_grad() = at::sparse_coo_tensor(
      at::tensor({1, 0}, numbers.options()).view({2, 1}), at::ones({1}), {2, 2}, sparse);
  EXPECT_THAT(model.Step(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("\"first.weight\": sparse in 2 dimensions")));
}

TEST_F(TorchAdapterTest, ATransposedGradientIsSentInRowMajorOrder) {
  TorchAdapter model(*optimizer_, net_);
  Backward();
  at::Tensor gradient = at::ones({2, 2});
  gradient[0][1].fill_(5.0);
  net_.first->weight.mutable_grad() = gradient.t();
  ASSERT_OK(model.Step());
  EXPECT_THAT(Received(0, 0), ElementsAre(1, 1, 5, 1));
}

TEST_F(TorchAdapterTest, OverlappedGradientsArePushedWhileBackwardRuns) {
  {
    TorchAdapter model(*optimizer_, net_);
    ASSERT_OK(model.OverlapBackward());
    Backward();
    EXPECT_GT(server().messages, 1);  // before any Step
    EXPECT_THAT(server().received, SizeIs(0));
    ASSERT_OK(model.Step());
    ASSERT_THAT(server().received, SizeIs(1));
    EXPECT_EQ(server().received[0].end.touched(), std::string("\x0f"));
    EXPECT_FALSE(net_.first->weight.grad().defined());
    // A second backward() that was not announced.
    Backward();
    Backward();
    EXPECT_THAT(model.Step(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("backward() ran 2 times before Step")));
  }
  Backward();  // the hooks are gone
  EXPECT_TRUE(net_.first->weight.grad().defined());
}

TEST_F(TorchAdapterTest, AnAddedModuleIsPushedAndPulledFromThenOn) {
  TorchAdapter model(*optimizer_, *net_.first, "first");
  ASSERT_OK(model.OverlapBackward());
  v1::ProposeReply done;
  done.mutable_done()->set_version(1);
  std::vector<v1::ProposeRequest> proposals;
  ON_CALL(*connection_, Propose).WillByDefault([&](const auto& request, absl::Time) {
    proposals.push_back(request);
    return done;
  });
  ON_CALL(*connection_, Describe).WillByDefault([this](const auto&, absl::Time) {
    v1::DescribeReply reply;
    *reply.mutable_description() =
        PagedMessage(DescriptionToProto(description_).SerializeAsString()).page(0).value();
    return reply;
  });
  for (int i = 0; i < 2; ++i) {  // the second time it is there already
    ASSERT_OK(model.AddParamGroup(*net_.second, "second", {{"lr", 0.5}}));
  }
  v1::AddParamGroupChange change;
  ASSERT_TRUE(change.ParseFromString(proposals[0].add_param_group().data()));
  ASSERT_THAT(change.parameters(), SizeIs(2));
  EXPECT_EQ(change.parameters(0).name(), "second.weight");
  Backward();
  EXPECT_FALSE(net_.second->bias.grad().defined());
  ASSERT_OK(model.Step());
  EXPECT_EQ(server().received.at(0).end.touched(), std::string("\x0f"));
  EXPECT_EQ(net_.second->bias[0].item<float>(), 7.0f);
}

TEST_F(TorchAdapterTest, EachAnnouncedBackwardIsAPushOfItsOwn) {
  TorchAdapter model(*optimizer_, net_);
  ASSERT_OK(model.OverlapBackward(/*passes=*/2));
  Backward();
  Backward();
  ASSERT_OK(model.Step());
  ASSERT_THAT(server().received, SizeIs(2));
  EXPECT_FALSE(server().received[0].begin.last());
  EXPECT_TRUE(server().received[1].begin.last());
  EXPECT_EQ(requests_[0].last_push(), 2u);
}

}  // namespace
}  // namespace shardstep
