#include "shardstep/tests/faults/fault_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"

namespace shardstep {
namespace {

constexpr size_t kPieceBytes = 16 << 10;

// A socket connected to "a.b.c.d:port"; below 0: nobody listens there.
int ConnectTo(const std::string& target) {
  const size_t colon = target.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(target.substr(colon + 1), &port) ||
      inet_pton(AF_INET, target.substr(0, colon).c_str(), &address.sin_addr) != 1) {
    return -1;
  }
  address.sin_port = htons(static_cast<uint16_t>(port));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fd;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

bool SendAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

}  // namespace

struct FaultProxy::Connection {
  ~Connection() {
    for (std::thread& thread : threads) thread.join();
    close(client);
    close(server);
  }

  int client = -1;
  int server = -1;
  Faults faults;
  bool swallows = false;
  int64_t bytes_left = INT64_MAX;  // until it is cut
  bool over = false;
  int running = 2;
  std::vector<std::thread> threads;
};

absl::StatusOr<std::unique_ptr<FaultProxy>> FaultProxy::Start(uint64_t seed) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener, 64) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    const int error = errno;
    if (listener >= 0) close(listener);
    return absl::ErrnoToStatus(error, "fault proxy: cannot listen on 127.0.0.1");
  }
  return std::unique_ptr<FaultProxy>(
      new FaultProxy(listener, absl::StrCat("127.0.0.1:", ntohs(address.sin_port)), seed));
}

FaultProxy::FaultProxy(int listener, std::string address, uint64_t seed)
    : listener_(listener), address_(std::move(address)), random_(seed) {
  acceptor_ = std::thread([this] { Accept(); });
}

FaultProxy::~FaultProxy() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  shutdown(listener_, SHUT_RDWR);  // wakes accept
  acceptor_.join();
  close(listener_);
  CutAll();
  std::list<std::unique_ptr<Connection>> all;
  {
    MutexLock lock(&mutex_);
    all.swap(connections_);
  }
}

void FaultProxy::SetTarget(const std::string& target) {
  MutexLock lock(&mutex_);
  target_ = target;
}

void FaultProxy::SetFaults(const Faults& faults) {
  MutexLock lock(&mutex_);
  faults_ = faults;
}

void FaultProxy::Pause() {
  MutexLock lock(&mutex_);
  paused_ = true;
}

void FaultProxy::Resume() {
  MutexLock lock(&mutex_);
  paused_ = false;
  changed_.NotifyAll();
}

void FaultProxy::CutAll() {
  MutexLock lock(&mutex_);
  for (const auto& connection : connections_) Cut(connection.get());
}

FaultProxy::Counts FaultProxy::counts() const {
  MutexLock lock(&mutex_);
  return counts_;
}

void FaultProxy::Cut(Connection* connection) {
  if (std::exchange(connection->over, true)) return;
  // A reset, not an orderly end: what is on its way is lost.
  const linger reset{1, 0};
  for (const int fd : {connection->client, connection->server}) {
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    shutdown(fd, SHUT_RDWR);
  }
  changed_.NotifyAll();
}

void FaultProxy::Accept() {
  while (true) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    {
      MutexLock lock(&mutex_);
      if (stopping_) {
        if (client >= 0) close(client);
        return;
      }
    }
    Reap();
    if (client >= 0) Serve(client);
  }
}

void FaultProxy::Reap() {
  std::list<std::unique_ptr<Connection>> ended;  // joined without the lock
  MutexLock lock(&mutex_);
  for (auto it = connections_.begin(); it != connections_.end();) {
    const auto next = std::next(it);
    if ((*it)->running == 0) ended.splice(ended.end(), connections_, it);
    it = next;
  }
}

void FaultProxy::Serve(int client) {
  auto owned = std::make_unique<Connection>();
  Connection* const connection = owned.get();
  std::string target;
  {
    MutexLock lock(&mutex_);
    ++counts_.connections;
    target = target_;
    connection->faults = faults_;
    std::uniform_real_distribution<double> chance(0, 1);
    connection->swallows = chance(random_) < faults_.swallow;
    if (connection->swallows) ++counts_.swallowed;
    if (chance(random_) < faults_.cut) {
      connection->bytes_left =
          std::uniform_int_distribution<int64_t>(1, faults_.cut_within)(random_);
    }
  }
  const int server = ConnectTo(target);
  if (server < 0) {
    close(client);
    return;
  }
  const int no_delay = 1;
  for (const int fd : {client, server}) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, sizeof(no_delay));
  }
  connection->client = client;
  connection->server = server;
  MutexLock lock(&mutex_);
  connections_.push_back(std::move(owned));
  connection->threads.emplace_back(
      [this, connection] { Pass(connection, connection->client, connection->server); });
  connection->threads.emplace_back(
      [this, connection] { Pass(connection, connection->server, connection->client); });
}

bool FaultProxy::Wait(const Connection& connection, absl::Duration duration) {
  const absl::Time until = absl::Now() + duration;
  MutexLock lock(&mutex_);
  while (!connection.over) {
    const absl::Duration left = until - absl::Now();
    if (paused_) {
      changed_.Wait(&mutex_);
    } else if (left > absl::ZeroDuration()) {
      changed_.WaitFor(&mutex_, left);
    } else {
      return true;
    }
  }
  return false;
}

void FaultProxy::Pass(Connection* connection, int from, int to) {
  std::vector<char> piece(kPieceBytes);
  while (true) {
    const ssize_t received = recv(from, piece.data(), piece.size(), 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) break;
    absl::string_view bytes(piece.data(), static_cast<size_t>(received));
    const Faults& faults = connection->faults;
    absl::Duration wait;
    bool cut = false;
    {
      MutexLock lock(&mutex_);
      wait = faults.delay * std::uniform_real_distribution<double>(0, 1)(random_);
    }
    if (faults.bytes_per_second > 0) {
      wait += absl::Seconds(static_cast<double>(bytes.size()) /
                            static_cast<double>(faults.bytes_per_second));
    }
    if (!Wait(*connection, wait)) break;
    if (connection->swallows) continue;
    {
      MutexLock lock(&mutex_);
      cut = static_cast<int64_t>(bytes.size()) >= connection->bytes_left;
      if (cut) bytes = bytes.substr(0, static_cast<size_t>(connection->bytes_left));
      connection->bytes_left -= static_cast<int64_t>(bytes.size());
      counts_.bytes += static_cast<int64_t>(bytes.size());
      if (cut) ++counts_.cut;
    }
    if (!SendAll(to, bytes) || cut) break;
  }
  MutexLock lock(&mutex_);
  Cut(connection);
  --connection->running;
}

}  // namespace shardstep
