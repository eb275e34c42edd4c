// Every version is one consistent cut: three servers, four asynchronous trainers as fast as they
// can. Every element of every parameter counts the steps, so that a pull of two versions shows.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/process_memory.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

constexpr int kServers = 3;
constexpr int kTrainers = 4;
constexpr int kPulls = 500;
// Per server 512 KiB of parameters; three held versions fit.
constexpr int64_t kElements = kServers * (int64_t{1} << 17);
constexpr int64_t kSnapshotMemory = int64_t{3} << 19;
constexpr int64_t kServerSlack = int64_t{96} << 20;

Floats MakeCounters(float value = 0) {
  Floats counters;
  counters.Add("rows", {kElements / 2}, value, Rows(kServers));
  counters.Add("columns", {4, kElements / 8}, value, Chunk{1, Rows(kServers).placements});
  counters.Add("whole", {5}, value, Whole{1});
  return counters;
}

// The one number that all elements have; -1 if they differ.
float CountOf(Floats& counters) {
  const float count = counters["whole"][0];
  for (const NamedTensor& tensor : counters.named()) {
    const absl::Span<const float> values = counters[tensor.name];
    if (!std::all_of(values.begin(), values.end(), [&](float v) { return v == count; })) return -1;
  }
  return count;
}

class ConsistentCutsTest : public testing::Test {
 protected:
  void SetUp() override {
    MiniFleetOptions options;
    options.servers = kServers;
    options.snapshot_memory = kSnapshotMemory;
    fleet_ = MakeProcessFleet(options);
    ASSERT_OK(fleet_->Start());
  }

  bool Running() const { return pulls_.load() < kPulls && !HasFailure(); }

  void Train(int rank) {
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    Floats counters = MakeCounters();
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer,
                         client.CreateOptimizer("counter", counters.named(), SGDOptions(1.0),
                                                Asynchronous(1'000'000), rank));
    const Floats minus_one = MakeCounters(-1);
    while (Running()) {
      ASSERT_OK_AND_ASSIGN(const StepResult step, PushAndStep(optimizer, minus_one));
      ++steps_;
      ASSERT_OK_AND_ASSIGN(const PullResult pull, optimizer.Pull(counters.named()));
      EXPECT_GE(pull.version, step.version);
      EXPECT_EQ(CountOf(counters), static_cast<float>(pull.version));
      ++pulls_;
    }
  }

  // Until the trainers are done.
  void Read() {
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    Floats counters = MakeCounters();
    uint64_t last = 0;
    while (Running()) {
      auto reader = client.OpenReader("counter");
      if (absl::IsNotFound(reader.status())) continue;
      ASSERT_OK(reader);
      ASSERT_OK_AND_ASSIGN(const PullResult pull, reader->Pull(counters.named()));
      EXPECT_EQ(CountOf(counters), static_cast<float>(pull.version));
      EXPECT_GE(pull.version, last);
      last = pull.version;
    }
    EXPECT_GT(last, 0u);
  }

  void Watch() {
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    while (Running()) {
      ASSERT_OK_AND_ASSIGN(const FleetStatus status, client.GetFleetStatus());
      for (const ServerStatus& server : status.servers) {
        ASSERT_OK(server.status);
        EXPECT_LE(server.snapshot_bytes, static_cast<uint64_t>(kSnapshotMemory));
        most_held_ = std::max(most_held_, server.snapshot_bytes);
      }
    }
  }

  std::unique_ptr<MiniFleet> fleet_;
  std::atomic<int> pulls_{0};
  std::atomic<uint64_t> steps_{0};
  uint64_t most_held_ = 0;
};

TEST_F(ConsistentCutsTest, NoPullHasTwoVersions) {
  std::vector<int64_t> before;
  for (int server = 0; server < kServers; ++server) {
    before.push_back(ResidentBytes(fleet_->pid(server)));
  }
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kTrainers; ++rank) threads.emplace_back([this, rank] { Train(rank); });
  threads.emplace_back([this] { Read(); });
  threads.emplace_back([this] { Watch(); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(pulls_.load(), kPulls);
  EXPECT_GT(most_held_, 0u);
  // Every step counted once.
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
  ASSERT_OK_AND_ASSIGN(const OptimizerDetails details, client.Describe("counter"));
  EXPECT_EQ(details.version, steps_.load());
  // Versions that were let go of are not kept: they would be twice the slack and more.
  for (int server = 0; server < kServers && !kFreedMemoryIsKept; ++server) {
    EXPECT_LT(ResidentBytes(fleet_->pid(server)) - before[server], kSnapshotMemory + kServerSlack)
        << "server " << server;
  }
}

}  // namespace
}  // namespace shardstep
