#include "shardstep/tests/bench/reference/tcp_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Of the call that just failed.
absl::Status SocketError(const char* call) {
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    return absl::DeadlineExceededError("the peer is silent");
  }
  if (errno == EPIPE || errno == ECONNRESET) return absl::UnavailableError("the peer has ended");
  return absl::ErrnoToStatus(errno, call);
}

absl::StatusOr<TcpSocket> NewSocket() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return SocketError("socket");
  return TcpSocket(fd);
}

absl::Status SetNoDelay(const TcpSocket& socket) {
  const int on = 1;
  if (setsockopt(socket.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0) {
    return absl::OkStatus();
  }
  return SocketError("TCP_NODELAY");
}

// The rest of a message of which `done` bytes have gone.
void Advance(msghdr* message, size_t done) {
  while (message->msg_iovlen > 0 && done >= message->msg_iov->iov_len) {
    done -= message->msg_iov->iov_len;
    ++message->msg_iov;
    --message->msg_iovlen;
  }
  if (message->msg_iovlen == 0) return;
  message->msg_iov->iov_base = static_cast<char*>(message->msg_iov->iov_base) + done;
  message->msg_iov->iov_len -= done;
}

}  // namespace

absl::StatusOr<TcpSocket> TcpSocket::Connect(int port, absl::Duration patience) {
  SHARDSTEP_ASSIGN_OR_RETURN(TcpSocket socket, NewSocket());
  const timeval limit = absl::ToTimeval(patience);
  for (const int wait : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    if (setsockopt(socket.fd(), SOL_SOCKET, wait, &limit, sizeof(limit)) != 0) {
      return SocketError("timeout");
    }
  }
  SHARDSTEP_RETURN_IF_ERROR(SetNoDelay(socket));
  const sockaddr_in address = Loopback(port);
  if (connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return SocketError("connect");
  }
  return socket;
}

TcpSocket::~TcpSocket() {
  if (fd_ >= 0) close(fd_);
}

absl::Status TcpSocket::Send(iovec* parts, size_t count) const {
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  while (message.msg_iovlen > 0) {
    const ssize_t sent = sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (sent >= 0) {
      Advance(&message, static_cast<size_t>(sent));
    } else if (errno != EINTR) {
      return SocketError("sendmsg");
    }
  }
  return absl::OkStatus();
}

absl::Status TcpSocket::Send(const void* from, size_t bytes) const {
  iovec part = {const_cast<void*>(from), bytes};
  return Send(&part, 1);
}

absl::StatusOr<size_t> TcpSocket::Receive(void* to, size_t most, bool all) const {
  size_t done = 0;
  for (;;) {
    const ssize_t received =
        recv(fd_, static_cast<char*>(to) + done, most - done, all ? MSG_WAITALL : 0);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) return SocketError("recv");
    done += static_cast<size_t>(received);
    if (received == 0 || done == most || !all) return done;
  }
}

absl::Status TcpSocket::ReceiveAll(iovec* parts, size_t count) const {
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  while (message.msg_iovlen > 0) {
    const ssize_t received = recvmsg(fd_, &message, MSG_WAITALL);
    if (received > 0) {
      Advance(&message, static_cast<size_t>(received));
    } else if (received == 0) {
      return absl::UnavailableError("the peer has ended");
    } else if (errno != EINTR) {
      return SocketError("recvmsg");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TcpListener> TcpListener::Create() {
  SHARDSTEP_ASSIGN_OR_RETURN(TcpSocket socket, NewSocket());
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(socket.fd(), generic, size) != 0) return SocketError("bind");
  if (listen(socket.fd(), SOMAXCONN) != 0) return SocketError("listen");
  if (getsockname(socket.fd(), generic, &size) != 0) return SocketError("getsockname");
  return TcpListener(std::move(socket), ntohs(address.sin_port));
}

absl::StatusOr<TcpSocket> TcpListener::Accept() const {
  for (;;) {
    const int fd = accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0 && errno == EINTR) continue;
    if (fd < 0) return SocketError("accept");
    TcpSocket socket(fd);
    SHARDSTEP_RETURN_IF_ERROR(SetNoDelay(socket));
    return socket;
  }
}

}  // namespace shardstep
