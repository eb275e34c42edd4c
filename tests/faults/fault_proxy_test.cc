#include "shardstep/tests/faults/fault_proxy.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// Sends back whatever comes, on each connection by a thread of its own.
class EchoServer {
 public:
  EchoServer() {
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 64), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
    acceptor_ = std::thread([this] {
      for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0;) {
        echoes_.emplace_back([fd] {
          char bytes[4096];
          for (ssize_t n; (n = recv(fd, bytes, sizeof(bytes), 0)) > 0;) {
            if (send(fd, bytes, static_cast<size_t>(n), MSG_NOSIGNAL) != n) break;
          }
          close(fd);
        });
      }
    });
  }
  ~EchoServer() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    for (std::thread& echo : echoes_) echo.join();
    close(listener_);
  }
  const std::string& address() const { return address_; }

 private:
  const int listener_ = socket(AF_INET, SOCK_STREAM, 0);
  std::string address_;
  std::thread acceptor_;
  std::vector<std::thread> echoes_;
};

class Caller {
 public:
  explicit Caller(const FaultProxy& proxy) {
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(proxy.address().substr(proxy.address().rfind(':') + 1), &port));
    const sockaddr_in address = Loopback(port);
    EXPECT_EQ(connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  ~Caller() { close(fd_); }

  void Send(absl::string_view bytes) { send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  // What comes until there are `size` bytes, the connection ends or nothing comes for `patience`.
  std::string Receive(size_t size, absl::Duration patience = absl::Seconds(10)) {
    std::string received;
    while (received.size() < size) {
      pollfd ready{fd_, POLLIN, 0};
      if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(patience))) <= 0) break;
      char bytes[4096];
      const ssize_t n = recv(fd_, bytes, std::min(sizeof(bytes), size - received.size()), 0);
      if (n <= 0) {
        ended_ = true;
        break;
      }
      received.append(bytes, static_cast<size_t>(n));
    }
    return received;
  }
  bool ended() const { return ended_; }

 private:
  const int fd_ = socket(AF_INET, SOCK_STREAM, 0);
  bool ended_ = false;
};

class FaultProxyTest : public testing::Test {
 protected:
  FaultProxyTest() : proxy_(FaultProxy::Start(/*seed=*/7).value()) {
    proxy_->SetTarget(echo_.address());
  }

  EchoServer echo_;
  std::unique_ptr<FaultProxy> proxy_;
};

TEST_F(FaultProxyTest, PassesEverythingOnBothWays) {
  Caller caller(*proxy_);
  const std::string bytes(100'000, 'x');
  std::thread sender([&] { caller.Send(bytes); });
  EXPECT_EQ(caller.Receive(bytes.size()), bytes);
  sender.join();
  EXPECT_EQ(proxy_->counts().connections, 1);
  EXPECT_EQ(proxy_->counts().bytes, 200'000);
}

TEST_F(FaultProxyTest, CutsAConnectionWithinSoManyBytes) {
  Faults faults;
  faults.cut = 1;
  faults.cut_within = 1000;
  proxy_->SetFaults(faults);
  Caller caller(*proxy_);
  caller.Send(std::string(2000, 'x'));
  EXPECT_LT(caller.Receive(2000).size(), 1000u);
  EXPECT_TRUE(caller.ended());
  EXPECT_TRUE(Eventually([&] { return proxy_->counts().cut == 1; }));
}

TEST_F(FaultProxyTest, SwallowsWhatIsSentAndStaysOpen) {
  Faults faults;
  faults.swallow = 1;
  proxy_->SetFaults(faults);
  Caller caller(*proxy_);
  caller.Send("hello");
  EXPECT_EQ(caller.Receive(1, absl::Milliseconds(200)), "");
  EXPECT_FALSE(caller.ended());
  EXPECT_EQ(proxy_->counts().swallowed, 1);
}

TEST_F(FaultProxyTest, DelaysAndThrottles) {
  Faults faults;
  faults.bytes_per_second = 200'000;
  proxy_->SetFaults(faults);
  Caller caller(*proxy_);
  const absl::Time begun = absl::Now();
  caller.Send(std::string(20'000, 'x'));
  EXPECT_EQ(caller.Receive(20'000).size(), 20'000u);
  // A tenth of a second each way, which overlap in part.
  EXPECT_GE(absl::Now() - begun, absl::Milliseconds(90));

  faults = Faults();
  faults.delay = absl::Milliseconds(20);
  proxy_->SetFaults(faults);
  Caller late(*proxy_);
  const absl::Time asked = absl::Now();
  for (int i = 0; i < 20; ++i) {
    late.Send("x");
    EXPECT_EQ(late.Receive(1), "x");
  }
  // 40 draws with a mean of 10 ms.
  EXPECT_GE(absl::Now() - asked, absl::Milliseconds(150));
}

TEST_F(FaultProxyTest, HoldsBackWhilePausedAndCutsAtOnce) {
  Caller caller(*proxy_);
  caller.Send("a");
  EXPECT_EQ(caller.Receive(1), "a");
  proxy_->Pause();
  caller.Send("b");
  EXPECT_EQ(caller.Receive(1, absl::Milliseconds(200)), "");
  proxy_->Resume();
  EXPECT_EQ(caller.Receive(1), "b");
  proxy_->CutAll();
  EXPECT_EQ(caller.Receive(1), "");
  EXPECT_TRUE(caller.ended());
}

TEST_F(FaultProxyTest, NobodyBehindItEndsTheConnection) {
  proxy_->SetTarget("127.0.0.1:1");
  Caller caller(*proxy_);
  EXPECT_EQ(caller.Receive(1), "");
  EXPECT_TRUE(caller.ended());
}

}  // namespace
}  // namespace shardstep
