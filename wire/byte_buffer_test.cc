#include "shardstep/wire/byte_buffer.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/shards.grpc.pb.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/random_frames.h"
#include "shardstep/wire/status.h"
#include "shardstep/wire/transport.h"

namespace shardstep {
namespace {

v1::FrameHeader Header(uint64_t number) {
  v1::FrameHeader header;
  header.mutable_read_end()->set_frames(number);
  return header;
}

std::string Payload(size_t size) {
  std::string payload(size, '\0');
  for (size_t i = 0; i < size; ++i) payload[i] = static_cast<char>(i * 7 + (i >> 9));
  return payload;
}

TEST(MakeFrameBufferTest, RefersToThePayloadUntilItIsDropped) {
  const std::string payload = Payload(3 * kShortPieceBytes);
  const absl::string_view pieces[] = {absl::string_view(payload).substr(0, kShortPieceBytes), "",
                                      absl::string_view(payload).substr(kShortPieceBytes)};
  int released = 0;
  {
    grpc::ByteBuffer buffer =
        MakeFrameBuffer(EncodeFramePrefix(Header(1), pieces), pieces, [&released] { ++released; });
    ASSERT_OK_AND_ASSIGN(ReceivedFrame first, ReceivedFrame::FromBuffer(buffer));
    buffer.Clear();
    EXPECT_EQ(released, 0);
    const ReceivedFrame frame = std::move(first);
    ASSERT_OK_AND_ASSIGN(const FrameView view, frame.Decode());
    EXPECT_EQ(Join(view.payload), payload);
    EXPECT_EQ(view.header.read_end().frames(), 1u);
    ASSERT_EQ(view.payload.size(), 2u);
    EXPECT_EQ(view.payload[0].data(), payload.data());
    EXPECT_EQ(view.payload[1].data(), payload.data() + kShortPieceBytes);
    EXPECT_EQ(released, 0);
  }
  EXPECT_EQ(released, 1);
}

TEST(MakeFrameBufferTest, CopiesShortPieces) {
  std::string payload = Payload(3 * kShortPieceBytes);
  const absl::string_view whole(payload);
  const size_t last = whole.size() - 7;
  const absl::string_view pieces[] = {
      whole.substr(0, kShortPieceBytes - 1), whole.substr(kShortPieceBytes - 1, 2),
      whole.substr(kShortPieceBytes + 1, last - kShortPieceBytes - 1), whole.substr(last)};
  const FramePrefix prefix = EncodeFramePrefix(Header(1), pieces);
  int released = 0;
  const grpc::ByteBuffer one = MakeFrameBuffer(prefix, pieces, [&released] { ++released; });
  ASSERT_OK_AND_ASSIGN(const ReceivedFrame frame, ReceivedFrame::FromBuffer(one));
  ASSERT_OK_AND_ASSIGN(const FrameView view, frame.Decode());
  EXPECT_EQ(Join(view.payload), payload);
  ASSERT_EQ(view.payload.size(), 3u);  // what was copied in a row is one
  EXPECT_EQ(view.payload[1].data(), payload.data() + kShortPieceBytes + 1);
  EXPECT_EQ(released, 0);

  const grpc::ByteBuffer other = MakeFrameBuffer(prefix, {pieces, 2}, [&released] { ++released; });
  EXPECT_EQ(released, 1);
}

TEST(MakeFrameBufferTest, WithoutPayloadReleasesAtOnce) {
  int released = 0;
  const grpc::ByteBuffer buffer =
      MakeFrameBuffer(EncodeFramePrefix(Header(1), {}), {}, [&released] { ++released; });
  EXPECT_EQ(released, 1);
  ASSERT_OK_AND_ASSIGN(const ReceivedFrame frame, ReceivedFrame::FromBuffer(buffer));
  EXPECT_OK(frame.Decode());
}

TEST(ReceivedFrameTest, RefusesABufferWithoutMessage) {
  EXPECT_THAT(ReceivedFrame::FromBuffer(grpc::ByteBuffer()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(MessageBufferTest, RoundTrip) {
  v1::PushAck ack;
  ack.set_session(7);
  ack.mutable_status()->set_message(std::string(10'000, 'x'));
  const grpc::ByteBuffer buffer = SerializeToBuffer(ack);
  v1::PushAck back;
  ASSERT_OK(ParseFromBuffer(buffer, &back));
  EXPECT_EQ(back.SerializeAsString(), ack.SerializeAsString());
  // A second time, since a reader may not use the buffer up.
  EXPECT_OK(ParseFromBuffer(buffer, &back));
}

TEST(MessageBufferTest, RefusesWhatIsNoSuchMessage) {
  const grpc::Slice slice(std::string("\x08"));
  v1::PushAck ack;
  EXPECT_THAT(ParseFromBuffer(grpc::ByteBuffer(&slice, 1), &ack),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "malformed message: not a shardstep.v1.PushAck"));
  EXPECT_THAT(ParseFromBuffer(grpc::ByteBuffer(), &ack),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

constexpr int kFrames = 20;
constexpr size_t kPayloadBytes = 500'001;

// Counts up to a number, from any thread.
class Countdown {
 public:
  explicit Countdown(int count) : left_(count) {}
  void Tick() {
    MutexLock lock(&mutex_);
    --left_;
    changed_.NotifyAll();
  }
  // Waits for the count, some seconds at most; returns what is left.
  int Wait() {
    const absl::Time end = absl::Now() + absl::Seconds(20);
    MutexLock lock(&mutex_);
    while (left_ > 0 && absl::Now() < end) changed_.WaitFor(&mutex_, end - absl::Now());
    return left_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int left_ ABSL_GUARDED_BY(mutex_);
};

// Sends kFrames frames that refer to one payload.
class FrameWriter : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  FrameWriter(const std::string& payload, Countdown* released)
      : payload_(payload), released_(released) {
    Next();
  }
  void OnWriteDone(bool ok) override { ok ? Next() : Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (sent_ == kFrames) return Finish(grpc::Status::OK);
    const absl::string_view pieces[] = {payload_};
    buffer_ = MakeFrameBuffer(EncodeFramePrefix(Header(++sent_), pieces), pieces,
                              [released = released_] { released->Tick(); });
    StartWrite(&buffer_);
  }

  const std::string& payload_;
  Countdown* const released_;
  grpc::ByteBuffer buffer_;
  int sent_ = 0;
};

// Decodes every frame and compares its payload.
class FrameReader : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  FrameReader(const std::string& payload, grpc::ByteBuffer* reply)
      : payload_(payload), reply_(reply) {
    StartRead(&buffer_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      *reply_ = SerializeToBuffer(v1::WriteStateReply());
      return Finish(grpc::Status::OK);
    }
    const absl::StatusOr<ReceivedFrame> frame = ReceivedFrame::FromBuffer(buffer_);
    const absl::StatusOr<FrameView> view =
        frame.ok() ? frame->Decode() : absl::StatusOr<FrameView>(frame.status());
    if (!view.ok()) return Finish(ToGrpcStatus(view.status()));
    if (Join(view->payload) != payload_) return Finish(grpc::Status(grpc::DATA_LOSS, "payload"));
    StartRead(&buffer_);
  }
  void OnDone() override { delete this; }

 private:
  const std::string& payload_;
  grpc::ByteBuffer* const reply_;
  grpc::ByteBuffer buffer_;
};

class RawService : public v1::Shards::WithRawCallbackMethod_ReadState<
                       v1::Shards::WithRawCallbackMethod_WriteState<v1::Shards::Service>> {
 public:
  explicit RawService(std::string payload) : payload_(std::move(payload)) {}

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ReadState(
      grpc::CallbackServerContext*) override {
    return new FrameWriter(payload_, &released_);
  }
  grpc::ServerReadReactor<grpc::ByteBuffer>* WriteState(grpc::CallbackServerContext*,
                                                        grpc::ByteBuffer* reply) override {
    return new FrameReader(payload_, reply);
  }
  const std::string& payload() const { return payload_; }
  Countdown& released() { return released_; }

 private:
  const std::string payload_;
  Countdown released_{kFrames};
};

// Raw frames on one end of a TCP connection, protobuf's own on the other.
class ConnectionTest : public testing::Test {
 protected:
  ConnectionTest() : service_(Payload(kPayloadBytes)) {
    grpc::ServerBuilder builder;
    ConfigureServer(&builder, 64 << 20);
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", ServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = v1::Shards::NewStub(grpc::CreateCustomChannel(
        "127.0.0.1:" + std::to_string(port), ClientCredentials(), MakeChannelArguments()));
    context_.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
  }
  ~ConnectionTest() override { server_->Shutdown(); }

  RawService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Shards::Stub> stub_;
  grpc::ClientContext context_;
};

TEST_F(ConnectionTest, ProtobufReadsOurFramesAndEachIsReleasedOnce) {
  auto reader = stub_->ReadState(&context_);
  v1::Frame frame;
  uint64_t frames = 0;
  while (reader->Read(&frame)) {
    ASSERT_EQ(frame.header().read_end().frames(), ++frames);
    ASSERT_EQ(frame.payload(), service_.payload());
  }
  ASSERT_OK(FromGrpcStatus(reader->Finish()));
  EXPECT_EQ(frames, static_cast<uint64_t>(kFrames));
  EXPECT_EQ(service_.released().Wait(), 0);
}

TEST_F(ConnectionTest, WeReadProtobufsFrames) {
  v1::WriteStateReply reply;
  auto writer = stub_->WriteState(&context_, &reply);
  for (int i = 0; i < kFrames; ++i) {
    v1::Frame frame;
    *frame.mutable_header() = Header(i);
    const absl::string_view pieces[] = {service_.payload()};
    frame.set_crc32c(EncodeFramePrefix(frame.header(), pieces).crc32c);
    frame.set_payload(service_.payload());
    ASSERT_TRUE(writer->Write(frame));
  }
  writer->WritesDone();
  EXPECT_OK(FromGrpcStatus(writer->Finish()));
}

TEST_F(ConnectionTest, ADamagedFrameEndsTheStream) {
  v1::WriteStateReply reply;
  auto writer = stub_->WriteState(&context_, &reply);
  v1::Frame frame;
  *frame.mutable_header() = Header(1);
  frame.set_payload("x");
  writer->Write(frame);
  EXPECT_THAT(FromGrpcStatus(writer->Finish()), StatusIs(absl::StatusCode::kDataLoss));
}

}  // namespace
}  // namespace shardstep
