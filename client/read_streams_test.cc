#include "shardstep/client/read_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/byte_buffer.h"

namespace shardstep::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// What became of one call, which outlives it.
struct CallRecord {
  StreamListener* listener = nullptr;
  std::vector<uint64_t> requests;  // their snapshots
  bool sending_closed = false;
  bool cancelled = false;
  bool destroyed = false;
  bool slow = false;  // says by itself when a message went out
  bool sending = false;

  void Sent() {
    sending = false;
    listener->OnSent();
  }
  void Answer() const { listener->OnReceived(grpc::ByteBuffer()); }
};

class FakeCall final : public ByteStream {
 public:
  explicit FakeCall(CallRecord* record) : record_(*record) {}
  ~FakeCall() override { record_.destroyed = true; }

  void Send(grpc::ByteBuffer&& message, bool another_follows) override {
    EXPECT_FALSE(another_follows);
    v1::ReadStateRequest request;
    EXPECT_OK(ParseFromBuffer(message, &request));
    EXPECT_FALSE(std::exchange(record_.sending, true));
    record_.requests.push_back(request.snapshot());
    if (!record_.slow) record_.Sent();
  }
  void CloseSending() override { record_.sending_closed = true; }
  void Cancel() override {
    record_.cancelled = true;
    record_.listener->OnClosed(absl::CancelledError(""));
  }

 private:
  CallRecord& record_;
};

// Its answer is one message.
class Reader final : public StreamListener {
 public:
  void OnSent() override {}
  void OnReceived(const grpc::ByteBuffer&) override { ++received; }
  bool Complete() override { return received == 1; }
  void OnClosed(const absl::Status& status) override { closed.push_back(status); }

  int received = 0;
  std::vector<absl::Status> closed;
};

class ReadStreamsTest : public testing::Test {
 protected:
  std::unique_ptr<ByteStream> Start(Reader* reader, uint64_t snapshot) {
    v1::ReadStateRequest request;
    request.set_snapshot(snapshot);
    return streams_->Start(request, reader, now_, [this](StreamListener* listener) {
      calls_.push_back(std::make_unique<CallRecord>());
      calls_.back()->listener = listener;
      return std::make_unique<FakeCall>(calls_.back().get());
    });
  }

  // One whole read.
  void Read(uint64_t snapshot) {
    Reader reader;
    const auto stream = Start(&reader, snapshot);
    for (const auto& call : calls_) {
      if (!call->requests.empty() && call->requests.back() == snapshot) call->Answer();
    }
    EXPECT_THAT(reader.closed, ElementsAre(absl::OkStatus()));
  }

  absl::Time now_ = absl::UnixEpoch();
  std::vector<std::unique_ptr<CallRecord>> calls_;
  std::shared_ptr<ReadStreams> streams_ = std::make_shared<ReadStreams>();
};

TEST_F(ReadStreamsTest, ACallServesOneReadAfterTheOther) {
  Read(1);
  Read(2);
  Read(3);
  ASSERT_THAT(calls_, SizeIs(1));
  EXPECT_THAT(calls_[0]->requests, ElementsAre(1, 2, 3));
  EXPECT_FALSE(calls_[0]->destroyed);
  streams_.reset();
  EXPECT_TRUE(calls_[0]->destroyed);
}

TEST_F(ReadStreamsTest, ReadsAtTheSameTimeHaveACallEach) {
  Reader first;
  const auto stream = Start(&first, 1);
  Read(2);
  EXPECT_THAT(first.closed, IsEmpty());
  EXPECT_EQ(first.received, 0);
  EXPECT_THAT(calls_, SizeIs(2));
}

TEST_F(ReadStreamsTest, AReadThatIsGivenUpTakesItsCallAlong) {
  Reader reader;
  auto stream = Start(&reader, 1);
  stream.reset();
  EXPECT_THAT(reader.closed, ElementsAre(StatusIs(absl::StatusCode::kCancelled)));
  EXPECT_TRUE(calls_[0]->destroyed);
  Read(2);
  EXPECT_THAT(calls_[1]->requests, ElementsAre(2));
}

TEST_F(ReadStreamsTest, ACallThatEndsGivesItsStatusToItsRead) {
  Reader reader;
  const auto stream = Start(&reader, 1);
  calls_[0]->listener->OnClosed(absl::UnavailableError("Socket closed"));
  EXPECT_THAT(reader.closed, ElementsAre(StatusIs(absl::StatusCode::kUnavailable)));
  EXPECT_FALSE(calls_[0]->cancelled);
}

TEST_F(ReadStreamsTest, AnIdleCallThatHasEndedServesNoOther) {
  Read(1);
  calls_[0]->listener->OnClosed(absl::UnavailableError("shutting down"));
  Read(2);
  EXPECT_TRUE(calls_[0]->destroyed);
  EXPECT_THAT(calls_[0]->requests, ElementsAre(1));
}

TEST_F(ReadStreamsTest, ACallIsNotBegunAnewInTheSecondHalfOfItsTime) {
  Read(1);
  now_ += kReadCallLifetime / 2 - absl::Seconds(1);
  Read(2);
  ASSERT_THAT(calls_, SizeIs(1));
  now_ += absl::Seconds(1);
  Read(3);
  EXPECT_THAT(calls_[0]->requests, ElementsAre(1, 2));
  EXPECT_TRUE(calls_[0]->destroyed);
}

TEST_F(ReadStreamsTest, ACallWhoseSendingIsClosedServesOneRead) {
  Reader reader;
  {
    const auto stream = Start(&reader, 1);
    stream->CloseSending();
    EXPECT_TRUE(calls_[0]->sending_closed);
    calls_[0]->Answer();
  }
  EXPECT_TRUE(calls_[0]->destroyed);
  Read(2);
  EXPECT_THAT(calls_[0]->requests, ElementsAre(1));
}

TEST_F(ReadStreamsTest, ACallThatSaysWhatNobodyAskedServesNoOther) {
  Read(1);
  calls_[0]->Answer();
  Read(2);
  EXPECT_THAT(calls_[0]->requests, ElementsAre(1));
}

// The transport may say that a request went out after it gave its answer. The next is sent after
// that.
TEST_F(ReadStreamsTest, ARequestIsSentWhenTheOneBeforeHasLeft) {
  Read(1);
  calls_[0]->slow = true;
  Reader reader;
  auto stream = Start(&reader, 2);
  calls_[0]->Answer();
  auto returned = std::async(std::launch::async, [&] { stream.reset(); });
  EXPECT_EQ(returned.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  calls_[0]->Sent();
  returned.get();
  calls_[0]->slow = false;
  Read(3);
  EXPECT_THAT(calls_[0]->requests, ElementsAre(1, 2, 3));
}

TEST_F(ReadStreamsTest, WhereManyReadAtOnceEachCallServesOne) {
  std::vector<Reader> readers(kMaxKeptReadCalls + 2);
  std::vector<std::unique_ptr<ByteStream>> streams;
  for (Reader& reader : readers) streams.push_back(Start(&reader, 1));
  for (const auto& call : calls_) call->Answer();
  streams.clear();
  size_t destroyed = 0;
  for (const auto& call : calls_) destroyed += call->destroyed ? 1 : 0;
  EXPECT_EQ(destroyed, 2u);
}

}  // namespace
}  // namespace shardstep::internal
