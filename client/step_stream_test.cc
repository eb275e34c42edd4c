#include "shardstep/client/step_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::SizeIs;

using Calls = std::vector<v1::StepCalls::Call>;

// The coordinator's end of one stream, which it outlives. Answers at once if told to.
struct FakeStream {
  StreamListener* listener = nullptr;
  std::vector<Calls> messages;
  bool echoes = false;
  bool cancelled = false;
  bool destroyed = false;

  // In one message. A step becomes the version of its sequence.
  void Answer(const Calls& calls, const absl::Status& status = absl::OkStatus()) const {
    v1::StepAnswers answers;
    for (const v1::StepCalls::Call& call : calls) {
      v1::StepAnswers::Answer& answer = *answers.add_answers();
      answer.set_id(call.id());
      *answer.mutable_status() = ToRichStatus(status);
      answer.mutable_reply()->mutable_committed()->set_version(call.request().header().sequence());
    }
    listener->OnReceived(SerializeToBuffer(answers));
  }
};

// Its messages are out when the test says so, or when they are answered at once.
class FakeByteStream final : public ByteStream {
 public:
  explicit FakeByteStream(FakeStream* stream) : stream_(*stream) {}
  ~FakeByteStream() override { stream_.destroyed = true; }

  void Send(grpc::ByteBuffer&& message, bool another_follows) override {
    EXPECT_FALSE(another_follows);
    v1::StepCalls calls;
    EXPECT_OK(ParseFromBuffer(message, &calls));
    stream_.messages.emplace_back(calls.calls().begin(), calls.calls().end());
    if (!stream_.echoes) return;
    stream_.Answer(stream_.messages.back());
    stream_.listener->OnSent();
  }
  void CloseSending() override {}
  void Cancel() override { stream_.cancelled = true; }

 private:
  FakeStream& stream_;
};

std::vector<uint64_t> SequencesOf(const Calls& calls) {
  std::vector<uint64_t> sequences;
  for (const auto& call : calls) sequences.push_back(call.request().header().sequence());
  return sequences;
}

v1::StepRequest Request(uint64_t sequence) {
  v1::StepRequest request;
  request.mutable_header()->set_sequence(sequence);
  return request;
}

class StepStreamTest : public testing::Test {
 protected:
  StepStream::Pending Start(uint64_t sequence, absl::Duration timeout = absl::Minutes(1)) {
    auto pending = steps_.Start(Request(sequence), timeout);
    EXPECT_OK(pending.status());
    return *std::move(pending);
  }
  // Time is up for it as it begins.
  void GiveUp(uint64_t sequence) {
    EXPECT_THAT(Start(sequence, absl::ZeroDuration()).Await(),
                StatusIs(absl::StatusCode::kDeadlineExceeded));
  }
  static uint64_t VersionOf(StepStream::Pending step) {
    const absl::StatusOr<v1::StepReply> reply = step.Await();
    EXPECT_OK(reply.status());
    return reply.ok() ? reply->committed().version() : 0;
  }
  FakeStream& stream(size_t index) { return *streams_.at(index); }
  const Calls& message(size_t index) { return stream(0).messages.at(index); }

  bool echoes_ = false;
  std::vector<std::unique_ptr<FakeStream>> streams_;
  StepStream steps_{[this](StreamListener* listener) {
    streams_.push_back(std::make_unique<FakeStream>());
    streams_.back()->listener = listener;
    streams_.back()->echoes = echoes_;
    return std::make_unique<FakeByteStream>(streams_.back().get());
  }};
};

TEST_F(StepStreamTest, AStepTakesItsTimeAlongAndGetsItsOwnAnswer) {
  StepStream::Pending step = Start(7, absl::Seconds(30));
  EXPECT_THAT(SequencesOf(message(0)), ElementsAre(7));
  EXPECT_THAT(message(0)[0].timeout_ms(), AllOf(Ge(1), Le(30'000)));
  stream(0).Answer(message(0));
  EXPECT_EQ(VersionOf(std::move(step)), 7);
}

TEST_F(StepStreamTest, WhatWaitsForAMessageOnItsWayTravelsTogether) {
  StepStream::Pending first = Start(1);
  StepStream::Pending second = Start(2);
  StepStream::Pending third = Start(3);
  EXPECT_THAT(stream(0).messages, SizeIs(1));
  stream(0).listener->OnSent();
  EXPECT_THAT(SequencesOf(message(1)), ElementsAre(2, 3));
  // In any order.
  stream(0).Answer({message(1)[1], message(0)[0], message(1)[0]});
  EXPECT_EQ(VersionOf(std::move(first)), 1);
  EXPECT_EQ(VersionOf(std::move(second)), 2);
  EXPECT_EQ(VersionOf(std::move(third)), 3);
}

TEST_F(StepStreamTest, MuchDoesNotTravelTogether) {
  StepStream::Pending first = Start(1);
  v1::StepRequest large = Request(2);
  large.set_trainer_state(std::string(kMaxPageBytes * 2 / 3, 'x'));
  ASSERT_OK_AND_ASSIGN(const StepStream::Pending second, steps_.Start(large, absl::Minutes(1)));
  ASSERT_OK_AND_ASSIGN(const StepStream::Pending third, steps_.Start(large, absl::Minutes(1)));
  stream(0).listener->OnSent();
  EXPECT_THAT(message(1), SizeIs(1));
  stream(0).listener->OnSent();
  EXPECT_THAT(message(2), SizeIs(1));
  large.set_trainer_state(std::string(kMaxMessageBytes, 'x'));
  EXPECT_THAT(steps_.Start(large, absl::Minutes(1)).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("4194")));
}

TEST_F(StepStreamTest, AnErrorIsThatOfItsStepAlone) {
  StepStream::Pending first = Start(1);
  stream(0).listener->OnSent();
  StepStream::Pending second = Start(2);
  stream(0).Answer(message(0), MakeError(absl::StatusCode::kAborted, "gone", v1::MISSING));
  const absl::Status status = first.Await().status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted, "gone"));
  EXPECT_EQ(ReasonOf(status), v1::MISSING);
  stream(0).Answer(message(1));
  EXPECT_EQ(VersionOf(std::move(second)), 2);
  EXPECT_THAT(streams_, SizeIs(1));
}

TEST_F(StepStreamTest, ALateAnswerIsNobodys) {
  GiveUp(1);
  stream(0).listener->OnSent();
  stream(0).Answer(message(0));
  StepStream::Pending second = Start(2);
  stream(0).Answer(message(1));
  EXPECT_EQ(VersionOf(std::move(second)), 2);
}

TEST_F(StepStreamTest, WhatIsNotWaitedForAnyMoreIsNotSent) {
  StepStream::Pending first = Start(1);
  GiveUp(2);
  stream(0).listener->OnSent();
  EXPECT_THAT(stream(0).messages, SizeIs(1));
  StepStream::Pending third = Start(3);
  EXPECT_THAT(SequencesOf(message(1)), ElementsAre(3));
}

TEST_F(StepStreamTest, TheEndOfAStreamIsThatOfItsStepsAndTheNextOpensAnother) {
  StepStream::Pending first = Start(1);
  StepStream::Pending unsent = Start(2);
  stream(0).listener->OnClosed(absl::UnavailableError("Socket closed"));
  EXPECT_THAT(first.Await(), StatusIs(absl::StatusCode::kUnavailable, "Socket closed"));
  EXPECT_THAT(unsent.Await(), StatusIs(absl::StatusCode::kUnavailable, "Socket closed"));
  StepStream::Pending third = Start(3);
  EXPECT_THAT(SequencesOf(stream(1).messages.at(0)), ElementsAre(3));
  stream(1).Answer(stream(1).messages.at(0));
  EXPECT_EQ(VersionOf(std::move(third)), 3);
}

TEST_F(StepStreamTest, AStreamGoesWithTheLastThatWaitedOnIt) {
  {
    const StepStream::Pending first = Start(1);
    stream(0).listener->OnClosed(absl::UnavailableError("Socket closed"));
    const StepStream::Pending second = Start(2);
    EXPECT_FALSE(stream(0).destroyed);
  }
  EXPECT_TRUE(stream(0).destroyed);
  EXPECT_FALSE(stream(1).destroyed);
}

TEST_F(StepStreamTest, AServerThatEndsAStreamInPeaceHasNotAnswered) {
  StepStream::Pending step = Start(1);
  stream(0).listener->OnClosed(absl::OkStatus());
  EXPECT_THAT(step.Await(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(StepStreamTest, WhatIsNoAnswerEndsTheStream) {
  StepStream::Pending step = Start(1);
  const grpc::Slice slice("\x0f\xff");
  stream(0).listener->OnReceived(grpc::ByteBuffer(&slice, 1));
  EXPECT_THAT(step.Await(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("StepAnswers")));
  EXPECT_TRUE(stream(0).cancelled);
}

TEST_F(StepStreamTest, AFullStreamIsFollowedByAnother) {
  std::vector<StepStream::Pending> steps;
  for (int i = 1; i <= kMaxOpenSteps; ++i) steps.push_back(Start(i));
  EXPECT_THAT(streams_, SizeIs(1));
  StepStream::Pending next = Start(1000);
  ASSERT_THAT(streams_, SizeIs(2));
  EXPECT_THAT(SequencesOf(stream(1).messages.at(0)), ElementsAre(1000));
  // Those on the first are served as before.
  stream(0).listener->OnSent();
  stream(0).Answer(message(0));
  stream(0).Answer(message(1));
  for (int i = 1; i <= kMaxOpenSteps; ++i) EXPECT_EQ(VersionOf(std::move(steps[i - 1])), i);
  EXPECT_FALSE(stream(1).destroyed);
}

TEST_F(StepStreamTest, ThreadsGetTheirOwnAnswers) {
  echoes_ = true;
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 8; ++thread) {
    threads.emplace_back([this, thread] {
      for (uint64_t i = 0; i < 200; ++i)
        EXPECT_EQ(VersionOf(Start(thread * 1000 + i)), thread * 1000 + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(streams_, SizeIs(1));
}

}  // namespace
}  // namespace shardstep::internal
