// A network that cuts a fifth of all pushes half-way and delays the rest, and callers that make
// calls twice: sums are exact, and what servers remember of calls does not grow with the run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/faults/fault_proxy.h"
#include "shardstep/tests/faults/ledger_fleet.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/process_memory.h"
#include "shardstep/tests/raw_trainer.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

constexpr int kServers = 3;
constexpr int kPushes = 5000;
// Between a quarter and the end of a run: what the allocator has not given back yet.
constexpr int64_t kNoGrowth = 4 << 20;

std::vector<int64_t> MemoryOf(const MiniFleet& fleet) {
  std::vector<int64_t> bytes;
  for (int server = 0; server < kServers; ++server) {
    bytes.push_back(ResidentBytes(fleet.pid(server)));
  }
  return bytes;
}

void ExpectNoGrowth(const std::vector<int64_t>& before, const std::vector<int64_t>& after) {
  if (kFreedMemoryIsKept) return;
  for (int server = 0; server < kServers; ++server) {
    EXPECT_LT(after[server], before[server] + kNoGrowth) << "server " << server;
  }
}

TEST(LossyNetworkTest, FiveThousandPushesOfWhichAFifthIsCut) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::vector<std::unique_ptr<FaultProxy>> proxies;
  for (int server = 0; server < kServers; ++server) {
    ASSERT_OK_AND_ASSIGN(auto proxy, FaultProxy::Start(seed + server));
    proxies.push_back(std::move(proxy));
  }
  LedgerFleetOptions options;
  options.trainers = 4;
  options.fleet.published = [&proxies](int server, const std::string& address) {
    proxies[server]->SetTarget(address);
    return proxies[server]->address();
  };
  LedgerFleet run(options);
  ASSERT_OK(run.Start());

  // A trainer's connection for pushes carries 66 KiB in a step: one in five is cut.
  Faults faults;
  faults.cut = 1;
  faults.cut_within = 2 * 5 * (66 << 10);
  faults.delay = absl::Milliseconds(1);
  for (const auto& proxy : proxies) proxy->SetFaults(faults);
  for (const auto& proxy : proxies) proxy->CutAll();
  const uint64_t steps = kPushes / (kServers * options.trainers) + 1;
  ASSERT_OK(run.AwaitBeyond(steps / 4, absl::Minutes(5)));
  const std::vector<int64_t> before = MemoryOf(run.servers());
  ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run.End(steps));
  EXPECT_TRUE(verdict.good()) << verdict.ToString();
  EXPECT_GE(verdict.version, steps);
  EXPECT_EQ(verdict.overdue_ms, 0);
  ExpectNoGrowth(before, MemoryOf(run.servers()));
  int cut = 0;
  for (const auto& proxy : proxies) cut += proxy->counts().cut;
  EXPECT_GE(cut, kPushes / 5);
}

TEST(LossyNetworkTest, FiveThousandPushesInAnyOrderOfWhichAFifthComesTwice) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937_64 random(seed);
  const auto one_in_five = [&random] { return random() % 5 == 0; };
  MiniFleetOptions options;
  options.servers = kServers;
  options.durability = "wal";
  options.log_bytes = 1 << 20;
  const std::unique_ptr<MiniFleet> fleet = MakeProcessFleet(options);
  ASSERT_OK(fleet->Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet->fleet_file()));
  Floats values;
  values.Add("sum", {4 * kServers}, 0, Rows(kServers));
  ASSERT_OK(
      client.CreateOptimizer("twice", values.named(), SGDOptions(1), Synchronous(1), 0).status());
  RawTrainer trainer(*fleet, "twice", 0, "a replaying one");
  ASSERT_OK(trainer.Open());

  const int steps = kPushes / kServers + 1;
  std::vector<int64_t> before;
  for (int step = 1; step <= steps; ++step) {
    std::vector<int> order = {0, 1, 2};
    std::shuffle(order.begin(), order.end(), random);
    for (const int server : order) {
      const std::vector<v1::Frame> push = trainer.PushFrames(server, step, {{"sum", -1}});
      ASSERT_OK(trainer.SendPush(server, push));
      if (one_in_five()) {
        ASSERT_OK(trainer.SendPush(server, push));
      }
    }
    v1::StepRequest request = trainer.MakeStep(step, step, step);
    request.mutable_header()->set_first_live_call(step);
    request.mutable_header()->set_first_live_push(step);
    for (bool again = true; again; again = one_in_five()) {
      ASSERT_OK_AND_ASSIGN(const v1::StepReply reply, trainer.Step(request));
      ASSERT_EQ(reply.committed().version(), static_cast<uint64_t>(step));
    }
    // Late.
    if (one_in_five()) {
      ASSERT_OK(trainer.SendPush(1, trainer.PushFrames(1, step, {{"sum", -1}})));
    }
    if (step == steps / 4) before = MemoryOf(*fleet);
  }
  ExpectNoGrowth(before, MemoryOf(*fleet));
  ASSERT_OK_AND_ASSIGN(OptimizerReader reader, client.OpenReader("twice"));
  ASSERT_OK(reader.Pull(values.named()).status());
  EXPECT_THAT(values["sum"], testing::Each(static_cast<float>(steps)));
}

}  // namespace
}  // namespace shardstep
