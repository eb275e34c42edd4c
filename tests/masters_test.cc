// Parameters declared bfloat16 or float16, as a client sees them: what may be given in which dtype,
// what a state_dict loads with and without masters, and what is refused.

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/half_floats.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

HostTensor Tensor(DType dtype, const std::vector<float>& values) {
  HostTensor tensor{dtype, {static_cast<int64_t>(values.size())}, {}};
  tensor.bytes.resize(values.size() * ItemSize(dtype));
  if (dtype == DType::kFloat32) {
    std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  } else {
    Narrow(dtype, values.data(), static_cast<int64_t>(values.size()), tensor.bytes.data());
  }
  return tensor;
}

std::vector<float> Numbers(const HostTensor& tensor) {
  const int64_t count = tensor.sizes[0];
  std::vector<float> values(count);
  if (tensor.dtype == DType::kFloat32) {
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  } else {
    Widen(tensor.dtype, tensor.bytes.data(), count, values.data());
  }
  return values;
}

NamedTensor Named(const std::string& name, HostTensor* tensor) {
  NamedTensor named;
  named.name = name;
  named.value = {tensor->bytes.data(), tensor->dtype, tensor->sizes};
  named.spec = Rows(2);
  return named;
}

class MastersTest : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    MiniFleetOptions options;
    options.servers = 2;
    fleet_ = MakeInProcessFleet(options);
    ASSERT_OK(fleet_->Start());
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    client_ = std::make_unique<Client>(std::move(client));
  }

  // "h", of the test's dtype.
  void Create(const std::vector<float>& values,
              const OptimizerOptions& options = SGDOptions(1.0).momentum(0.5)) {
    HostTensor h = Tensor(GetParam(), values);
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer,
                         client_->CreateOptimizer("m", std::vector<NamedTensor>{Named("h", &h)},
                                                  options, Synchronous(1), 0));
    optimizer_ = std::make_unique<ShardedOptimizer>(std::move(optimizer));
  }
  absl::Status Push(HostTensor gradient) {
    SHARDSTEP_ASSIGN_OR_RETURN(GradientPush push, optimizer_->StartPush());
    SHARDSTEP_RETURN_IF_ERROR(push.Add("h", gradient.view()));
    SHARDSTEP_RETURN_IF_ERROR(push.Finish());
    return optimizer_->Step().status();
  }
  HostTensor Pulled() {
    HostTensor h = Tensor(GetParam(), std::vector<float>(elements_));
    EXPECT_OK(optimizer_->Pull({Named("h", &h)}).status());
    return h;
  }
  std::vector<float> Master(const StateDict& dict) {
    return Numbers(std::get<HostTensor>(dict.state.at("h").at("master")));
  }
  // Half of one ulp of the declared dtype at 1: an update that alone is rounded away.
  float Tiny() const { return GetParam() == DType::kBFloat16 ? 0x1p-8f : 0x1p-11f; }

  size_t elements_ = 3;
  std::unique_ptr<MiniFleet> fleet_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
};

TEST_P(MastersTest, WhatOneStepIsTooSmallForAddsUpInTheMaster) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 1, 1}, SGDOptions(1.0)));
  const std::vector<float> tiny(3, -Tiny());
  ASSERT_OK(Push(Tensor(GetParam(), tiny)));
  EXPECT_THAT(Numbers(Pulled()), testing::Each(1));  // rounded to even
  ASSERT_OK(Push(Tensor(GetParam(), tiny)));
  EXPECT_THAT(Numbers(Pulled()), testing::Each(1 + 2 * Tiny()));
  ASSERT_OK_AND_ASSIGN(const StateDict dict, optimizer_->state_dict());
  EXPECT_EQ(dict.parameters.at("h").dtype, GetParam());
  EXPECT_THAT(Master(dict), testing::Each(1 + 2 * Tiny()));
}

TEST_P(MastersTest, AGradientMayComeInFloat32) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 1, 1}, SGDOptions(1.0)));
  const float odd = 1.0f / 3;  // in neither 16-bit float
  ASSERT_OK(Push(Tensor(DType::kFloat32, {odd, 0, -odd})));
  ASSERT_OK_AND_ASSIGN(const StateDict dict, optimizer_->state_dict());
  EXPECT_THAT(Master(dict), ElementsAre(1 - odd, 1, 1 + odd));
  HostTensor integers{DType::kInt32, {3}, std::vector<char>(12)};
  EXPECT_THAT(Push(integers),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       absl::StrCat("parameter \"h\": expected dtype ", DTypeName(GetParam()),
                                    " or float32, got int32")));
}

TEST_P(MastersTest, InfinitiesAndNaNsArePulled) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 1, 1}, SGDOptions(1.0)));
  ASSERT_OK(Push(Tensor(DType::kFloat32, {NAN, -kInfinity, 3e38f})));
  const std::vector<float> pulled = Numbers(Pulled());
  EXPECT_TRUE(std::isnan(pulled[0]));
  EXPECT_EQ(pulled[1], kInfinity);
  EXPECT_EQ(pulled[2], GetParam() == DType::kFloat16 ? -kInfinity : -0x1.c4p127f);
}

TEST_P(MastersTest, ADictAsPyTorchWritesItIsWidened) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 2, 3}));
  ASSERT_OK(Push(Tensor(GetParam(), {1, 1, 1})));
  ASSERT_OK_AND_ASSIGN(StateDict dict, optimizer_->state_dict());
  const std::vector<float> values = {0.1f, -7, 1e-3f};
  // torch.optim keeps a bfloat16 parameter's state in bfloat16.
  dict.parameters["h"] = Tensor(GetParam(), values);
  dict.state["h"] = {{"momentum_buffer", Tensor(GetParam(), values)}};
  ASSERT_OK_AND_ASSIGN(const LoadResult loaded, optimizer_->LoadStateDict(dict));
  EXPECT_TRUE(loaded.missing_keys.empty());
  ASSERT_OK_AND_ASSIGN(const StateDict after, optimizer_->state_dict());
  EXPECT_EQ(after.parameters.at("h").bytes, dict.parameters.at("h").bytes);
  EXPECT_EQ(Master(after), Numbers(dict.parameters["h"]));
  const HostTensor& momentum = std::get<HostTensor>(after.state.at("h").at("momentum_buffer"));
  EXPECT_EQ(momentum.dtype, DType::kFloat32);
  EXPECT_EQ(Numbers(momentum), Numbers(dict.parameters["h"]));
}

TEST_P(MastersTest, TheStepCountIsNotCastToTheParametersDType) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 2, 3}, AdamOptions(1.0)));
  ASSERT_OK(Push(Tensor(GetParam(), {1, 1, 1})));
  ASSERT_OK_AND_ASSIGN(StateDict dict, optimizer_->state_dict());
  dict.state["h"]["step"] = 4097.0;  // in neither 16-bit float
  ASSERT_OK(optimizer_->LoadStateDict(dict).status());
  ASSERT_OK(Push(Tensor(GetParam(), {1, 1, 1})));
  ASSERT_OK_AND_ASSIGN(const StateDict after, optimizer_->state_dict());
  EXPECT_EQ(std::get<double>(after.state.at("h").at("step")), 4098);
}

TEST_P(MastersTest, AMasterIsTakenInsteadOfTheValue) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 2, 3}));
  ASSERT_OK_AND_ASSIGN(StateDict dict, optimizer_->state_dict());
  const std::vector<float> master = {1.0f / 3, 1e-9f, -5};
  dict.state["h"]["master"] = Tensor(DType::kFloat32, master);
  ASSERT_OK(optimizer_->LoadStateDict(dict).status());
  ASSERT_OK_AND_ASSIGN(const StateDict after, optimizer_->state_dict());
  EXPECT_EQ(Master(after), master);
  EXPECT_EQ(Pulled().bytes, Tensor(GetParam(), master).bytes);
  EXPECT_EQ(after.state.at("h").size(), 1u);  // never stepped
  // Alone it is a value like another.
  dict.parameters.clear();
  dict.state["h"]["master"] = Tensor(DType::kFloat32, {7, 8, 9});
  ASSERT_OK(optimizer_->LoadStateDict(dict).status());
  ASSERT_OK_AND_ASSIGN(const StateDict last, optimizer_->state_dict());
  EXPECT_THAT(Master(last), ElementsAre(7, 8, 9));
}

// torch.optim's load_state_dict casts all state to the parameter's dtype, and its steps leave what
// they do not know as it is: older than the parameter.
TEST_P(MastersTest, AMasterThatWentThroughPyTorchIsNone) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 2, 3}));
  ASSERT_OK_AND_ASSIGN(StateDict dict, optimizer_->state_dict());
  dict.parameters["h"] = Tensor(GetParam(), {4, 5, 6});
  dict.state["h"]["master"] = Tensor(GetParam(), {1, 2, 3});
  ASSERT_OK_AND_ASSIGN(const LoadResult loaded, optimizer_->LoadStateDict(dict));
  EXPECT_TRUE(loaded.unexpected_keys.empty());
  ASSERT_OK_AND_ASSIGN(const StateDict after, optimizer_->state_dict());
  EXPECT_THAT(Master(after), ElementsAre(4, 5, 6));
}

TEST_P(MastersTest, ValuesAloneMayBeFloat32) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 2, 3}));
  ASSERT_OK(Push(Tensor(GetParam(), {1, 1, 1})));
  StateDict dict;
  dict.parameters["h"] = Tensor(DType::kFloat32, {1.0f / 3, 2, 3});
  ASSERT_OK(optimizer_->LoadStateDict(dict).status());
  ASSERT_OK_AND_ASSIGN(const StateDict after, optimizer_->state_dict());
  EXPECT_THAT(Master(after), ElementsAre(1.0f / 3, 2, 3));
  // The optimizer's state stays.
  EXPECT_THAT(Numbers(std::get<HostTensor>(after.state.at("h").at("momentum_buffer"))),
              ElementsAre(1, 1, 1));
}

TEST_P(MastersTest, AFloat32ParameterHasNoMaster) {
  HostTensor f = Tensor(DType::kFloat32, {1, 2, 3});
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer,
                       client_->CreateOptimizer("f", std::vector<NamedTensor>{Named("f", &f)},
                                                SGDOptions(1.0), Synchronous(1), 0));
  ASSERT_OK_AND_ASSIGN(StateDict dict, optimizer.state_dict());
  EXPECT_TRUE(dict.state.empty());
  dict.state["f"]["master"] = Tensor(DType::kFloat32, {1, 2, 3});
  EXPECT_THAT(optimizer.LoadStateDict(dict).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("Unexpected key(s) in state_dict: \"optim.state.f.master\".")));
  // Until one is added that has.
  HostTensor h = Tensor(GetParam(), {4, 5, 6});
  ParameterGroup group;
  group.parameters = {Named("h", &h)};
  ASSERT_OK(optimizer.AddParamGroup(group));
  ASSERT_OK_AND_ASSIGN(dict, optimizer.state_dict());
  EXPECT_EQ(dict.state.count("f"), 0u);
  EXPECT_THAT(Master(dict), ElementsAre(4, 5, 6));
  EXPECT_EQ(dict.parameters.at("h").dtype, GetParam());
}

TEST_P(MastersTest, WithoutAMasterItIsRefused) {
  HostTensor h = Tensor(GetParam(), {1, 2, 3});
  NamedTensor named = Named("h", &h);
  named.master = false;
  EXPECT_THAT(
      client_
          ->CreateOptimizer("m", std::vector<NamedTensor>{named}, SGDOptions(1.0), Synchronous(1),
                            0)
          .status(),
      StatusIs(absl::StatusCode::kInvalidArgument,
               absl::StrCat("parameter \"h\": dtype ", DTypeName(GetParam()),
                            " with master=false, expected master=true: without a float32 master "
                            "the bits that SGD and RMSprop give would depend on the sharding")));
}

TEST_P(MastersTest, AnotherDTypeIsAnotherDefinition) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 2, 3}));
  HostTensor f = Tensor(DType::kFloat32, {1, 2, 3});
  EXPECT_THAT(client_
                  ->CreateOptimizer("m", std::vector<NamedTensor>{Named("h", &f)},
                                    SGDOptions(1.0).momentum(0.5), Synchronous(1), 0)
                  .status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr(absl::StrCat("parameter 0 \"h\": dtype ", DTypeName(GetParam()),
                                              ", got float32"))));
  // A pull brings the declared dtype and no other.
  EXPECT_THAT(optimizer_->Pull({Named("h", &f)}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       absl::StrCat("parameter \"h\": expected dtype ", DTypeName(GetParam()),
                                    ", got float32")));
}

TEST_P(MastersTest, MemoryIsThatOfTheMasters) {
  ASSERT_NO_FATAL_FAILURE(Create({1, 2, 3}));
  ASSERT_OK_AND_ASSIGN(const FleetStatus status, client_->GetFleetStatus());
  uint64_t bytes = 0;
  for (const ServerStatus& server : status.servers) bytes += server.shard_bytes;
  EXPECT_EQ(bytes, 3 * sizeof(float));
}

INSTANTIATE_TEST_SUITE_P(DTypes, MastersTest, testing::Values(DType::kBFloat16, DType::kFloat16),
                         [](const auto& info) { return std::string(DTypeName(info.param)); });

}  // namespace
}  // namespace shardstep
