// The client's ends of raw TCP's connections: RawPusher and RawPuller.
//
// Each is for one thread and owns its connection; it refers to the client's tensors. Run blocks,
// each wait for the server for kTransferPatience at most.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_CLIENT_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_CLIENT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/tests/bench/reference/raw_tcp_wire.h"
#include "shardstep/tests/bench/reference/rounds.h"
#include "shardstep/tests/bench/reference/tcp_socket.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {

// The tensors of one connection.
struct RawStream {
  std::vector<int> tensors;
  int64_t bytes = 0;   // of each tensor
  int64_t window = 0;  // tensors
  TransferTensors* values = nullptr;
  TcpSocket socket{-1};

  RawHeader Header(int tensor) const { return {tensor, bytes}; }
};

// Connects to the server at the port, for one direction.
absl::StatusOr<TcpSocket> OpenRawTcp(int port, RawDirection direction);

// Both sends and reads acknowledgements, these only when the window is full: those of a whole
// window fit into the connection's buffers.
class RawPusher {
 public:
  explicit RawPusher(RawStream stream) : stream_(std::move(stream)) {}

  // Until all is acknowledged. May be called again.
  absl::Status Run(Rounds* rounds);
  // DATA_LOSS: the server has not received exactly `rounds` rounds in all, to the byte.
  absl::Status Check(int64_t rounds) const;

 private:
  absl::Status Send(int tensor);
  // Until so many tensors are acknowledged.
  absl::Status AwaitAcks(int64_t tensors);

  RawStream stream_;
  int64_t sent_ = 0;
  RawAck acked_ = {0, 0};
  std::array<RawAck, 256> acks_;
  size_t kept_ = 0;  // bytes of an incomplete one
};

// Both requests and receives. Tensors come in the order of their requests, so each goes where it
// belongs before its header is seen.
class RawPuller {
 public:
  explicit RawPuller(RawStream stream) : stream_(std::move(stream)) {}

  // May be called again. DATA_LOSS: a tensor came that was not the next.
  absl::Status Run(Rounds* rounds);

 private:
  // Fills the window. False: there is no further round.
  absl::StatusOr<bool> Request(Rounds* rounds);
  absl::Status Receive();

  RawStream stream_;
  int64_t round_ = 0;        // the next to begin
  size_t next_request_ = 0;  // places among the stream's tensors
  size_t next_ = 0;
  int64_t in_flight_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_CLIENT_H_
