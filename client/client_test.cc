#include "shardstep/client/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

// A port on loopback that nobody listens on, for as long as this lives.
class ClosedPort {
 public:
  ClosedPort() : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~ClosedPort() { ::close(socket_); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  const int socket_;
  int port_ = 0;
};

ClientOptions Impatient() {
  ClientOptions options;
  options.connect_timeout = absl::Milliseconds(300);
  return options;
}

TEST(ConnectTest, AMissingFleetFileSaysWhatToDo) {
  EXPECT_THAT(Client::Connect("no/such/fleet.json").status(),
              StatusIs(absl::StatusCode::kNotFound,
                       "fleet file \"no/such/fleet.json\": no such file; pass --fleet or set "
                       "SHARDSTEP_FLEET (local: shardctl fleet up --servers 3 --dir D)"));
}

TEST(ConnectTest, AServerThatRefusesConnectionsIsNamedWithAddressAttemptsAndTime) {
  const ClosedPort port;
  FleetFile fleet;
  fleet.name = "digits";
  fleet.servers = {port.address()};
  const std::string path = absl::StrCat(testing::TempDir(), "/refused.json");
  ASSERT_OK(fleet.Write(path));
  EXPECT_THAT(Client::Connect(path, Impatient()).status(),
              StatusIs(absl::StatusCode::kUnavailable,
                       ContainsRegex(absl::StrCat("^server 0 at ", port.address(),
                                                  ": connection refused, [0-9]+ attempts? in "
                                                  "0\\.3 s$"))));
}

TEST(ConnectTest, AnAddressIsAskedForItsFleet) {
  const ClosedPort port;
  EXPECT_THAT(
      Client::Connect(port.address(), Impatient()).status(),
      StatusIs(absl::StatusCode::kUnavailable,
               HasSubstr(absl::StrCat("server at ", port.address(), ": connection refused"))));
}

// What it is, its coordinator knows again once it has heard of all servers.
TEST(ListOptimizersTest, AlsoNamesThoseThatAreNotLive) {
  internal::FakeTimer timer;
  auto connection = std::make_unique<testing::NiceMock<internal::MockConnection>>(
      std::make_shared<const internal::OptimizerIndex>(
          internal::Describe({{"a", DType::kFloat32, {2}, std::nullopt}}, 1)),
      1);
  v1::ListOptimizersReply reply;
  reply.add_optimizers()->set_state("recovering");
  reply.add_optimizers()->mutable_mode()->mutable_synchronous()->set_trainers(2);
  EXPECT_CALL(*connection, ListOptimizers).WillOnce(testing::Return(reply));
  Client client(internal::MakeCore(std::move(connection), &timer));
  ASSERT_OK_AND_ASSIGN(const std::vector<OptimizerSummary> listed, client.ListOptimizers());
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0].state, "recovering");
  EXPECT_FALSE(listed[0].mode.has_value());
  EXPECT_EQ(ToString(listed[1].mode.value()), ToString(Mode(Synchronous(2))));
}

TEST(ConnectTest, AFleetThatIsAwayCanBeLookedAt) {
  const ClosedPort port;
  FleetFile fleet;
  fleet.name = "digits";
  fleet.servers = {port.address()};
  const std::string path = absl::StrCat(testing::TempDir(), "/away.json");
  ASSERT_OK(fleet.Write(path));
  ClientOptions options;
  options.connect_timeout = absl::ZeroDuration();
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(path, options));
  ASSERT_OK_AND_ASSIGN(const FleetStatus status, client.GetFleetStatus(absl::Milliseconds(200)));
  ASSERT_EQ(status.servers.size(), 1u);
  EXPECT_EQ(status.servers[0].address, port.address());
  EXPECT_THAT(status.servers[0].status,
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("connection refused")));
}

}  // namespace
}  // namespace shardstep
