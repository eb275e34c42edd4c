// For tests: a connection whose calls are mocked and whose streams end at fake servers, a timer
// that stands still, and small optimizers.
#ifndef SHARDSTEP_CLIENT_FAKE_FLEET_H_
#define SHARDSTEP_CLIENT_FAKE_FLEET_H_

#include <gmock/gmock.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/byte_stream.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/connection.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/retry.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep::internal {

// Sleeping moves the time, nothing else does.
class FakeTimer final : public Timer {
 public:
  absl::Time Now() const override { return now_; }
  void SleepFor(absl::Duration duration) override {
    slept.push_back(duration);
    Advance(duration);
  }
  void Advance(absl::Duration duration) { now_ += duration; }

  std::vector<absl::Duration> slept;

 private:
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

// Waits are three quarters of their limit.
RetryPolicy FakePolicy(FakeTimer* timer);

// What one server received of one push or write: bytes by (shard, offset of the byte).
struct ReceivedTensors {
  v1::Begin begin;
  v1::WriteBegin write_begin;
  v1::End end;
  std::vector<uint32_t> frame_checksums;
  size_t max_payload = 0;
  // By shard: the bytes of its range; zeros where a slice said so. Gaps stay '?'.
  std::map<uint32_t, std::string> shards;
  // The same of state, by shard and v1.Slice.tensor.
  std::map<std::pair<uint32_t, uint32_t>, std::string> state;
  std::vector<v1::Slice> slices;
  // By shard: the numbers and, one behind the other, the elements of its slices of rows.
  std::map<uint32_t, std::pair<std::vector<int64_t>, std::string>> rows;
  std::vector<v1::Scalars::Scalar> scalars;
};

// The server's end of push and write streams. Confined to the test's thread, since the fake stream
// calls inline.
class FakeServer {
 public:
  explicit FakeServer(std::shared_ptr<const OptimizerIndex> index) : index_(std::move(index)) {}

  std::unique_ptr<ByteStream> Open(StreamListener* listener, bool write);

  // Every push or write that ended, in the order of their ends.
  std::vector<ReceivedTensors> received;
  // Answers to the next pushes; OK when empty.
  std::deque<absl::Status> answers;
  // Called as a push or write ends, before it is answered.
  std::function<void()> on_end = [] {};
  // The stream breaks with UNAVAILABLE when so many more messages have come; below 0: never.
  int break_after = -1;
  // Messages are taken, but never let go of, until the stream is closed.
  bool hold_messages = false;
  int streams = 0;
  int messages = 0;
  // Of these, those that wait for no other.
  int departures = 0;

 private:
  class Stream;

  absl::Status Take(Stream* stream, const FrameView& frame);

  const std::shared_ptr<const OptimizerIndex> index_;
};

// Streams of reads: each opening plays the next script, else what `serve` makes of the request. A
// stream plays on as long as its listener wants more.
class FakeReadServer {
 public:
  struct Script {
    std::vector<v1::FrameHeader> headers;
    std::vector<std::string> payloads;  // one for each header
    absl::Status status;                // how the stream ends
    bool corrupt_last = false;          // flips a bit of the last message
    bool hangs = false;                 // does not end
  };

  std::unique_ptr<ByteStream> Open(const v1::ReadStateRequest& request, StreamListener* listener);

  std::deque<Script> scripts;
  std::function<Script(const v1::ReadStateRequest&)> serve;
  std::vector<v1::ReadStateRequest> requests;
  // Messages that were given to listeners, of all streams.
  int played = 0;

 private:
  class Stream;
};

// What server `server_rank` sends for a request, if `dict` is the optimizer's state at the
// snapshot: as a server does, in frames of at most `frame_bytes`.
FakeReadServer::Script ServeRead(const OptimizerIndex& index, int server_rank,
                                 const v1::Snapshot& snapshot, const StateDict& dict,
                                 const v1::ReadStateRequest& request, size_t frame_bytes);

// A whole read of `snapshot`: one frame for each slice and one for all scalars.
FakeReadServer::Script ReadOf(const v1::Snapshot& snapshot,
                              const std::vector<std::pair<v1::Slice, std::string>>& slices,
                              const v1::Scalars& scalars = {});
// A slice of float32 and its bytes.
std::pair<v1::Slice, std::string> FloatSlice(uint32_t shard, uint64_t offset,
                                             const std::vector<float>& values, uint32_t tensor = 0);

class MockConnection : public Connection {
 public:
  explicit MockConnection(std::shared_ptr<const OptimizerIndex> index, int servers);

  int num_servers() const override { return static_cast<int>(servers.size()); }
  std::string ServerAddress(int server_rank) const override {
    return absl::StrCat("127.0.0.1:", 7400 + server_rank);
  }

#define SHARDSTEP_MOCK_CALL(Method)                                                                \
  MOCK_METHOD(absl::StatusOr<v1::Method##Reply>, Method, (const v1::Method##Request&, absl::Time), \
              (override))
  SHARDSTEP_MOCK_CALL(OpenSession);
  SHARDSTEP_MOCK_CALL(RenewSession);
  SHARDSTEP_MOCK_CALL(CloseSession);
  SHARDSTEP_MOCK_CALL(Propose);
  SHARDSTEP_MOCK_CALL(Describe);
  SHARDSTEP_MOCK_CALL(ListOptimizers);
  SHARDSTEP_MOCK_CALL(ListSessions);
  SHARDSTEP_MOCK_CALL(Step);
  SHARDSTEP_MOCK_CALL(StepStatus);
  SHARDSTEP_MOCK_CALL(OpenSnapshot);
  SHARDSTEP_MOCK_CALL(RenewSnapshot);
  SHARDSTEP_MOCK_CALL(CloseSnapshot);
  SHARDSTEP_MOCK_CALL(Checkpoint);
  SHARDSTEP_MOCK_CALL(ListCheckpoints);
  SHARDSTEP_MOCK_CALL(VerifyCheckpoint);
#undef SHARDSTEP_MOCK_CALL
  MOCK_METHOD(absl::StatusOr<v1::HelloReply>, Hello, (int, const v1::HelloRequest&, absl::Time),
              (override));

  std::unique_ptr<ByteStream> StartPush(int server_rank, StreamListener* listener) override {
    return servers[server_rank]->Open(listener, /*write=*/false);
  }
  std::unique_ptr<ByteStream> StartWrite(int server_rank, absl::Time,
                                         StreamListener* listener) override {
    return servers[server_rank]->Open(listener, /*write=*/true);
  }
  std::unique_ptr<ByteStream> StartRead(int server_rank, const v1::ReadStateRequest& request,
                                        StreamListener* listener) override {
    return readers[server_rank].Open(request, listener);
  }

  std::vector<std::unique_ptr<FakeServer>> servers;
  std::vector<FakeReadServer> readers;
};

// An optimizer "digits" of these parameters, SGD, as the planner cuts it for so many servers.
OptimizerDescription Describe(std::vector<ParameterShape> parameters, int servers,
                              const PlannerOptions& planner = {});

// A core that owns `connection` and waits by `timer`.
std::shared_ptr<ClientCore> MakeCore(std::unique_ptr<Connection> connection, FakeTimer* timer);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_FAKE_FLEET_H_
