#include "shardstep/tests/bench/latencies.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/pusher.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/raw_trainer.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

constexpr char kName[] = "latencies";

}  // namespace

absl::StatusOr<Latencies> MeasureLatenciesOnce(int servers, int tensors, int64_t bytes,
                                               int rounds) {
  MiniFleetOptions options;
  options.servers = servers;
  const auto fleet = MakeProcessFleet(options);
  SHARDSTEP_RETURN_IF_ERROR(fleet->Start());
  const int64_t elements = bytes / static_cast<int64_t>(sizeof(float));
  Floats memory;
  for (int i = 0; i < tensors; ++i) memory.Add(absl::StrCat("t", i), {elements}, 1.0F);
  const std::vector<NamedTensor>& named = memory.named();
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet->fleet_file()));
  SHARDSTEP_RETURN_IF_ERROR(client
                                .CreateOptimizer(kName, named, SGDOptions(0.0),
                                                 Asynchronous(std::numeric_limits<uint64_t>::max()),
                                                 /*trainer_rank=*/0)
                                .status());
  SHARDSTEP_ASSIGN_OR_RETURN(OptimizerReader reader, client.OpenReader(kName));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<Pusher> pusher,
                             Pusher::Make(fleet->fleet_file(), kName, /*trainer_rank=*/1));
  const auto stub = v1::Shards::NewStub(
      grpc::CreateChannel(fleet->address(0), grpc::InsecureChannelCredentials()));

  Latencies latencies;
  const auto timed = [&latencies](const std::string& what, const auto& call) {
    const absl::Time begin = absl::Now();
    const absl::Status status = call();
    latencies[what].push_back(absl::ToDoubleSeconds(absl::Now() - begin));
    return status;
  };
  for (int round = -rounds / 10; round < rounds; ++round) {
    if (round == 0) latencies.clear();  // those before were warm-up
    SHARDSTEP_RETURN_IF_ERROR(timed("unary call", [&] {
      return Call(*stub, &v1::Shards::Stub::Hello, v1::HelloRequest()).status();
    }));
    SHARDSTEP_RETURN_IF_ERROR(timed("push", [&]() -> absl::Status {
      SHARDSTEP_RETURN_IF_ERROR(pusher->Push(named, 0, named.size()));
      return pusher->AwaitAcks(0);
    }));
    SHARDSTEP_RETURN_IF_ERROR(timed("step", [&] { return pusher->Step(); }));
    SHARDSTEP_RETURN_IF_ERROR(timed("pull", [&] { return reader.Pull(named).status(); }));
  }
  return latencies;
}

}  // namespace shardstep
