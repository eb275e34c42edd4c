#include "shardstep/client/cli/fleet_status.h"

#include <sstream>
#include <string>

#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

// Server 0 serves, server 1 waits, server 2 is away.
FleetStatus Example() {
  FleetStatus fleet;
  fleet.name = "digits";
  fleet.durability = "none";
  fleet.servers.resize(3);
  for (int rank = 0; rank < 3; ++rank) {
    ServerStatus& server = fleet.servers[rank];
    server.server_rank = rank;
    server.address = "127.0.0.1:740" + std::to_string(rank);
    server.serving = rank == 0;
    server.incarnation = 7;
    server.numeric_fingerprint = 0xABC;
    server.shard_bytes = 3 << 20;
  }
  fleet.servers[2].status =
      absl::UnavailableError("server 2 at 127.0.0.1:7402: connection refused, 7 attempts in 5.0 s");
  return fleet;
}

std::string Printed(const FleetStatus& fleet, bool json) {
  FleetFlags flags;
  flags.json = json;
  std::ostringstream out;
  PrintFleetStatus(fleet, flags, out);
  return out.str();
}

TEST(FleetStatusTest, ShowsEveryServer) {
  EXPECT_EQ(Printed(Example(), /*json=*/false),
            "fleet \"digits\" (fleet.json), durability none\n"
            "server  address         start  numerics   shards  pushes  snapshots  state\n"
            "     0  127.0.0.1:7400      7  00000abc  3.0 MiB     0 B        0 B  serving\n"
            "     1  127.0.0.1:7401      7  00000abc  3.0 MiB     0 B        0 B  not serving\n"
            "     2  127.0.0.1:7402      -  -               -       -          -  connection "
            "refused, 7 attempts in "
            "5.0 s\n");
}

TEST(FleetStatusTest, JsonSaysTheSame) {
  const Json json =
      Json::parse(Printed(Example(), /*json=*/true), nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["name"], "digits");
  EXPECT_EQ(json["servers"][0]["serving"], true);
  EXPECT_EQ(json["servers"][0]["shard_bytes"], 3 << 20);
  EXPECT_EQ(json["servers"][1]["serving"], false);
  EXPECT_EQ(json["servers"][2]["error"], "connection refused, 7 attempts in 5.0 s");
  EXPECT_FALSE(json["servers"][2].contains("shard_bytes"));
}

TEST(FleetStatusTest, NamesTheFirstServerThatDoesNotServe) {
  FleetStatus fleet = Example();
  EXPECT_THAT(AllServing(fleet),
              StatusIs(absl::StatusCode::kUnavailable, "server 1 at 127.0.0.1:7401: not serving"));
  fleet.servers[1].serving = true;
  EXPECT_THAT(AllServing(fleet),
              StatusIs(absl::StatusCode::kUnavailable,
                       "server 2 at 127.0.0.1:7402: connection refused, 7 attempts in 5.0 s"));
  fleet.servers.pop_back();
  EXPECT_OK(AllServing(fleet));
}

}  // namespace
}  // namespace shardstep
