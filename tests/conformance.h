// The fixture of the conformance suite: what a fleet does for its clients, the same for servers in
// one process and for real ones. Every test has an optimizer of its own name; all share one fleet.
#ifndef SHARDSTEP_TESTS_CONFORMANCE_H_
#define SHARDSTEP_TESTS_CONFORMANCE_H_

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {

inline constexpr int kServers = 3;

class ConformanceTest : public testing::TestWithParam<const char*> {
 protected:
  static void TearDownTestSuite() { fleets_.clear(); }

  void SetUp() override {
    std::unique_ptr<MiniFleet>& fleet = fleets_[GetParam()];
    if (fleet == nullptr) {
      MiniFleetOptions options;
      options.servers = kServers;
      fleet = GetParam() == std::string("InProcess") ? MakeInProcessFleet(options)
                                                     : MakeProcessFleet(options);
      ASSERT_OK(fleet->Start());
    }
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet->fleet_file()));
    client_ = std::make_unique<Client>(std::move(client));
  }

  // The test's own name, without its parameter.
  static std::string Name() {
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    return name.substr(0, name.find('/'));
  }

  // `a` lies on all servers, `b` on one.
  static Floats Parameters() {
    Floats parameters;
    parameters.Add("a", {7}, 0, Rows(kServers)).Add("b", {5}, 0, Whole{1});
    return parameters;
  }

  absl::StatusOr<ShardedOptimizer> Create(const OptimizerOptions& options = SGDOptions(1.0),
                                          Mode mode = Synchronous(1), int trainer_rank = 0) {
    return client_->CreateOptimizer(Name(), Parameters().named(), options, mode, trainer_rank);
  }

  static void ExpectValues(ShardedOptimizer& optimizer, float a, float b) {
    Floats values = Parameters();
    ASSERT_OK(optimizer.Pull(values.named()));
    EXPECT_THAT(values["a"], testing::Each(a));
    EXPECT_THAT(values["b"], testing::Each(b));
  }

  inline static std::map<std::string, std::unique_ptr<MiniFleet>> fleets_;
  std::unique_ptr<Client> client_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_CONFORMANCE_H_
