// FaultProxy: a TCP proxy on loopback that does to connections what a bad network does: delays
// them, slows them down, swallows what they send, cuts them half-way.
//
//   ASSERT_OK_AND_ASSIGN(auto proxy, FaultProxy::Start(seed));
//   proxy->SetTarget("127.0.0.1:7400");
//   proxy->SetFaults({.cut = 0.2});       // of connections made from now on
//   ... connect to proxy->address() ...
//   proxy->CutAll();
#ifndef SHARDSTEP_TESTS_FAULTS_FAULT_PROXY_H_
#define SHARDSTEP_TESTS_FAULTS_FAULT_PROXY_H_

#include <cstdint>
#include <list>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep {

// What may happen to a connection; which of it does is drawn when it is made. Chances are between
// 0 and 1.
struct Faults {
  // Nothing is passed on, either way, and it stays open.
  double swallow = 0;
  // It is cut when it has passed on a number of bytes, of both directions together, that is drawn
  // from 1 to `cut_within`.
  double cut = 0;
  int64_t cut_within = 64 << 10;
  // Each piece of up to 16 KiB waits for a time drawn from 0 to this.
  absl::Duration delay = absl::ZeroDuration();
  // At most so many bytes a second, each way; 0: no limit.
  int64_t bytes_per_second = 0;
};

// Thread-safe. Every connection has two threads of its own, which end with it.
class FaultProxy {
 public:
  // Listens on a free port of 127.0.0.1. What is drawn follows from `seed` and the order of the
  // connections.
  static absl::StatusOr<std::unique_ptr<FaultProxy>> Start(uint64_t seed);
  // Cuts all connections; blocks until its threads have ended.
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  // host:port that it listens on.
  const std::string& address() const { return address_; }
  // Where connections made from now on lead, an IPv4 address and port; at first, and where nobody
  // listens, they are cut at once.
  void SetTarget(const std::string& target);
  // Of connections made from now on.
  void SetFaults(const Faults& faults);
  // Nothing is passed on, in any connection, until Resume.
  void Pause();
  void Resume();
  void CutAll();

  struct Counts {
    int connections = 0;
    int swallowed = 0;
    int cut = 0;
    int64_t bytes = 0;  // passed on
  };
  Counts counts() const;

 private:
  struct Connection;

  FaultProxy(int listener, std::string address, uint64_t seed);

  void Accept();
  void Serve(int client);
  // Passes on what comes from one side until either ends.
  void Pass(Connection* connection, int from, int to);
  // Waits for `duration`, and as long as it is paused. False: the connection is over.
  bool Wait(const Connection& connection, absl::Duration duration);
  void Cut(Connection* connection) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Forgets connections whose threads have ended.
  void Reap();

  const int listener_;
  const std::string address_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
  std::string target_ ABSL_GUARDED_BY(mutex_);
  Faults faults_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Counts counts_ ABSL_GUARDED_BY(mutex_);
  std::list<std::unique_ptr<Connection>> connections_ ABSL_GUARDED_BY(mutex_);
  std::thread acceptor_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_FAULTS_FAULT_PROXY_H_
