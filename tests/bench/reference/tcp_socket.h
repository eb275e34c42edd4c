// TcpSocket: a blocking TCP connection over loopback, with TCP_NODELAY and the default buffers.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TCP_SOCKET_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TCP_SOCKET_H_

#include <sys/uio.h>

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace shardstep {

// Owns the descriptor. One thread may send while another receives. Errors: UNAVAILABLE, the peer
// has ended; DEADLINE_EXCEEDED, it was silent for the patience given.
class TcpSocket {
 public:
  // Each wait for the peer is bounded by `patience`.
  static absl::StatusOr<TcpSocket> Connect(int port, absl::Duration patience);

  explicit TcpSocket(int fd) : fd_(fd) {}
  ~TcpSocket();
  TcpSocket(TcpSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  TcpSocket& operator=(TcpSocket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  // All of the parts in one message if the kernel takes it so. Blocks; changes the array.
  absl::Status Send(iovec* parts, size_t count) const;
  absl::Status Send(const void* from, size_t bytes) const;
  // What has come, at most `most` bytes; blocks until there is something, with `all` until there
  // are as many. Fewer, or 0: the peer has ended.
  absl::StatusOr<size_t> Receive(void* to, size_t most, bool all = false) const;
  // Fills all of the parts. Blocks; changes the array.
  absl::Status ReceiveAll(iovec* parts, size_t count) const;

  int fd() const { return fd_; }

 private:
  int fd_;
};

// Listens on a free port of 127.0.0.1. For one thread.
class TcpListener {
 public:
  static absl::StatusOr<TcpListener> Create();

  int port() const { return port_; }
  // Blocks until somebody connects. Waits on the connection are not bounded.
  absl::StatusOr<TcpSocket> Accept() const;

 private:
  TcpListener(TcpSocket socket, int port) : socket_(std::move(socket)), port_(port) {}

  TcpSocket socket_;
  int port_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TCP_SOCKET_H_
