// Server: a Node (server/node.h) on a socket.
//
// The life of a request:
//  1. gRPC reads it on one of its threads and calls a handler: CoordinatorService, ShardsService or
//  PeerService.
//  2. The handler checks the deadline, asks ServerState for the Node (UNAVAILABLE while the server
//  waits for its fleet
//     file or shuts down), and the Node for the Coordinator or the ShardHost of the optimizer that
//     is named.
//  3. It hands the request to that object and returns. The object runs in its own Serializer, hands
//  tensor work to
//     the thread pool, and calls the reply when it is done, from whatever thread it is on.
//  4. The reply turns the absl::Status into gRPC's, details included, and finishes the call. A call
//  that was cancelled
//     is finished at once; its reply then goes nowhere.
//  5. Streams of frames (PushStream, WriteCall, ReadStream) deal with one frame after the other:
//  the payload is copied
//     once, from gRPC's buffers into its place, or sent from where it lies.
//  6. What the coordinator tells the servers, its own included, goes through PeerClient and
//  PeerService.
//
// No handler blocks. The threads of a server are gRPC's, those of three pools (tensor work, files,
// logs) and one that ticks.
#ifndef SHARDSTEP_SERVER_RPC_SERVER_H_
#define SHARDSTEP_SERVER_RPC_SERVER_H_

#include <grpcpp/server.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/checkpoint/stoppable_file_system.h"
#include "shardstep/server/catalog.h"
#include "shardstep/server/checkpoint_store.h"
#include "shardstep/server/clock.h"
#include "shardstep/server/directory_lock.h"
#include "shardstep/server/node.h"
#include "shardstep/server/rpc/coordinator_service.h"
#include "shardstep/server/rpc/peer_client.h"
#include "shardstep/server/rpc/peer_service.h"
#include "shardstep/server/rpc/server_options.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/server/rpc/shards_service.h"
#include "shardstep/server/thread_pool.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep {

// Thread-safe, except that Shutdown and the destructor are one thread's. Several may live in one
// process.
class Server {
 public:
  // Takes the data directory, binds, writes the address file. Returns while the fleet file is not
  // there yet: until it is, the server is NOT_SERVING and answers UNAVAILABLE. INVALID_ARGUMENT for
  // the options; FAILED_PRECONDITION if another server has the data directory, or a fleet file that
  // exists has no such server rank; UNAVAILABLE if the address cannot be bound; what Catalog::Open
  // and FleetFile::Load say.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options);
  // Shuts down without grace.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const { return port_; }
  // host:port, as in the address file.
  const std::string& address() const { return address_; }
  uint64_t incarnation() const { return catalog_->incarnation(); }

  // Refuses new calls, ends waiting ones with UNAVAILABLE, writes the catalog, lets the rest finish
  // for `grace` at most, then cancels it. Blocks until all is done. A second call has no effect.
  void Shutdown(absl::Duration grace);

 private:
  Server(ServerOptions options, std::unique_ptr<DirectoryLock> lock,
         std::unique_ptr<Catalog> catalog, uint32_t numeric_fingerprint);

  absl::Status Listen();
  absl::Status WriteAddressFile() const;
  // Loads the fleet file and begins to serve. NOT_FOUND while there is none.
  absl::Status TryServe();
  // The ticking thread.
  void Tick();
  void SetHealth(bool serving);

  const ServerOptions options_;
  const SteadyClock steady_clock_;
  const std::unique_ptr<DirectoryLock> lock_;
  const std::unique_ptr<Catalog> catalog_;
  // Their jobs hold the node's hosts, and hand in others: Shutdown stops all three.
  ThreadPool pool_;
  ThreadPool disk_;
  ThreadPool log_;
  StoppableFileSystem files_{PosixFileSystem()};
  // Once the fleet is known.
  std::unique_ptr<CheckpointStore> checkpoints_;
  ServerState state_;
  PeerClient peers_;
  CoordinatorService coordinator_service_;
  ShardsService shards_service_;
  PeerService peer_service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::string address_;

  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread ticker_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_SERVER_H_
