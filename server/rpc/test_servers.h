// TestServers: servers on real sockets in one process, and how tests talk to them: typed stubs,
// frames by hand.
#ifndef SHARDSTEP_SERVER_RPC_TEST_SERVERS_H_
#define SHARDSTEP_SERVER_RPC_TEST_SERVERS_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/server/rpc/server.h"
#include "shardstep/server/rpc/server_options.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {

// For one test, confined to its thread. Files lie in a fresh directory of the test.
class TestServers {
 public:
  explicit TestServers(int servers);
  ~TestServers();

  // Of servers that are started from now on: see ServerOptions::fatal.
  void OnFatal(std::function<void(const absl::Status&)> fatal) { fatal_ = std::move(fatal); }

  // Of server `rank`, before it is started.
  ServerOptions Options(int rank) const;
  void Start(int rank);
  void Stop(int rank);
  // With the addresses of the servers that run; one that does not gets the address of nobody.
  void WriteFleetFile();
  // Starts all, then writes the fleet file and waits until all serve.
  void StartAll();
  // Waits until the health service of server `rank` says so.
  void WaitUntilServing(int rank);

  Server& server(int rank) { return *servers_[rank]; }
  const FleetFile& fleet() const { return fleet_; }
  const std::string& directory() const { return directory_; }
  // To the server's present address; it keeps one connection.
  std::shared_ptr<grpc::Channel> channel(int rank);

 private:
  std::string directory_;
  FleetFile fleet_;
  std::function<void(const absl::Status&)> fatal_;
  std::vector<std::unique_ptr<Server>> servers_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
};

// A client's context with a deadline half a minute away.
std::unique_ptr<grpc::ClientContext> Context();

// A frame with its checksum.
v1::Frame MakeFrame(const v1::FrameHeader& header, absl::string_view payload = {});

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_TEST_SERVERS_H_
