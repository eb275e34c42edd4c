#include "shardstep/client/step_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::ElementsAre;

using Answer = absl::StatusOr<v1::StepReply>;
using Calls = std::vector<v1::StepCalls::Call>;

// The coordinator's end of all streams, numbered as they are opened. Thread-safe.
class FakeCoordinator {
 public:
  std::unique_ptr<ByteStream> Open(StreamListener* listener) {
    MutexLock lock(&mutex_);
    streams_.push_back(std::make_unique<State>());
    streams_.back()->listener = listener;
    return std::make_unique<Stream>(this, streams_.size() - 1);
  }

  // Message `index` of the stream; blocks until it was sent.
  Calls AwaitMessage(size_t stream, size_t index) {
    MutexLock lock(&mutex_);
    while (streams_.size() <= stream || streams_[stream]->messages.size() <= index) {
      changed_.Wait(&mutex_);
    }
    const v1::StepCalls& message = streams_[stream]->messages[index];
    return {message.calls().begin(), message.calls().end()};
  }
  bool destroyed(size_t stream) {
    MutexLock lock(&mutex_);
    return streams_[stream]->destroyed;
  }
  size_t opened() {
    MutexLock lock(&mutex_);
    return streams_.size();
  }
  StreamListener* listener(size_t stream) {
    MutexLock lock(&mutex_);
    return streams_[stream]->listener;
  }

  // In one message. A step becomes the version of its sequence.
  void AnswerAll(size_t stream, const Calls& calls, const absl::Status& status = absl::OkStatus()) {
    v1::StepAnswers answers;
    for (const v1::StepCalls::Call& call : calls) {
      v1::StepAnswers::Answer& answer = *answers.add_answers();
      answer.set_id(call.id());
      *answer.mutable_status() = ToRichStatus(status);
      answer.mutable_reply()->mutable_committed()->set_version(call.request().header().sequence());
    }
    listener(stream)->OnReceived(SerializeToBuffer(answers));
  }

 private:
  struct State {
    StreamListener* listener = nullptr;
    std::vector<v1::StepCalls> messages;
    bool destroyed = false;
  };

  class Stream final : public ByteStream {
   public:
    Stream(FakeCoordinator* coordinator, size_t index)
        : coordinator_(*coordinator), index_(index) {}
    ~Stream() override {
      MutexLock lock(&coordinator_.mutex_);
      coordinator_.streams_[index_]->destroyed = true;
    }
    void Send(grpc::ByteBuffer&& message, bool another_follows) override {
      EXPECT_FALSE(another_follows);
      v1::StepCalls calls;
      EXPECT_OK(ParseFromBuffer(message, &calls));
      MutexLock lock(&coordinator_.mutex_);
      coordinator_.streams_[index_]->messages.push_back(std::move(calls));
      coordinator_.changed_.NotifyAll();
    }
    void CloseSending() override {}
    void Cancel() override {}

   private:
    FakeCoordinator& coordinator_;
    const size_t index_;
  };

  Mutex mutex_;
  CondVar changed_;
  std::vector<std::unique_ptr<State>> streams_ ABSL_GUARDED_BY(mutex_);
};

std::vector<uint64_t> SequencesOf(const Calls& calls) {
  std::vector<uint64_t> sequences;
  for (const auto& call : calls) sequences.push_back(call.request().header().sequence());
  return sequences;
}

class StepStreamTest : public testing::Test {
 protected:
  // On a thread of its own.
  std::future<Answer> Step(uint64_t sequence, absl::Duration timeout = absl::Minutes(1)) {
    return std::async(std::launch::async, [this, sequence, timeout] {
      v1::StepRequest request;
      request.mutable_header()->set_sequence(sequence);
      return steps_.Step(request, timeout);
    });
  }
  static uint64_t VersionOf(std::future<Answer> step) {
    const Answer answer = step.get();
    EXPECT_OK(answer.status());
    return answer.ok() ? answer->committed().version() : 0;
  }

  FakeCoordinator coordinator_;
  StepStream steps_{[this](StreamListener* listener) { return coordinator_.Open(listener); }};
};

TEST_F(StepStreamTest, AStepTakesItsTimeAlongAndGetsItsOwnAnswer) {
  std::future<Answer> step = Step(7, absl::Seconds(30));
  const Calls calls = coordinator_.AwaitMessage(0, 0);
  EXPECT_THAT(SequencesOf(calls), ElementsAre(7));
  EXPECT_EQ(calls[0].timeout_ms(), 30'000);
  coordinator_.AnswerAll(0, calls);
  EXPECT_EQ(VersionOf(std::move(step)), 7);
}

TEST_F(StepStreamTest, WhatWaitsForAMessageOnItsWayTravelsTogether) {
  std::future<Answer> first = Step(1);
  const Calls alone = coordinator_.AwaitMessage(0, 0);
  // Answered before the transport says that it is out, as may be: these find it on its way.
  coordinator_.AnswerAll(0, alone);
  EXPECT_EQ(VersionOf(std::move(first)), 1);
  // Time is up for this one before it was sent, which says that it waits to be.
  EXPECT_THAT(Step(2, absl::Milliseconds(1)).get(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(Step(3, absl::Milliseconds(1)).get(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  coordinator_.listener(0)->OnSent();
  EXPECT_THAT(SequencesOf(coordinator_.AwaitMessage(0, 1)), ElementsAre(2, 3));
}

TEST_F(StepStreamTest, AnswersComeInAnyOrderAndTogether) {
  std::future<Answer> first = Step(1);
  Calls calls = coordinator_.AwaitMessage(0, 0);
  coordinator_.listener(0)->OnSent();
  std::future<Answer> second = Step(2);
  calls.insert(calls.begin(), coordinator_.AwaitMessage(0, 1)[0]);
  coordinator_.AnswerAll(0, calls);
  EXPECT_EQ(VersionOf(std::move(second)), 2);
  EXPECT_EQ(VersionOf(std::move(first)), 1);
}

TEST_F(StepStreamTest, AnErrorIsThatOfItsStepAlone) {
  std::future<Answer> first = Step(1);
  const Calls calls = coordinator_.AwaitMessage(0, 0);
  coordinator_.listener(0)->OnSent();
  std::future<Answer> second = Step(2);
  const Calls later = coordinator_.AwaitMessage(0, 1);
  v1::ErrorDetail detail;
  detail.set_reason(v1::MISSING);
  coordinator_.AnswerAll(0, calls, MakeError(absl::StatusCode::kAborted, "gone", detail));
  const absl::Status status = first.get().status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(ReasonOf(status), v1::MISSING);
  coordinator_.AnswerAll(0, later);
  EXPECT_EQ(VersionOf(std::move(second)), 2);
  EXPECT_EQ(coordinator_.opened(), 1);
}

TEST_F(StepStreamTest, ALateAnswerIsNobodys) {
  EXPECT_THAT(Step(1, absl::Milliseconds(1)).get(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  coordinator_.AnswerAll(0, coordinator_.AwaitMessage(0, 0));
  coordinator_.listener(0)->OnSent();
  std::future<Answer> second = Step(2);
  coordinator_.AnswerAll(0, coordinator_.AwaitMessage(0, 1));
  EXPECT_EQ(VersionOf(std::move(second)), 2);
}

TEST_F(StepStreamTest, TheEndOfAStreamIsThatOfItsStepsAndTheNextOpensAnother) {
  std::future<Answer> first = Step(1);
  coordinator_.AwaitMessage(0, 0);
  std::future<Answer> unsent = Step(2, absl::Milliseconds(1));
  EXPECT_THAT(unsent.get(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  coordinator_.listener(0)->OnClosed(absl::UnavailableError("Socket closed"));
  EXPECT_THAT(first.get(), StatusIs(absl::StatusCode::kUnavailable));
  std::future<Answer> third = Step(3);
  const Calls calls = coordinator_.AwaitMessage(1, 0);
  EXPECT_THAT(SequencesOf(calls), ElementsAre(3));
  EXPECT_TRUE(coordinator_.destroyed(0));
  coordinator_.AnswerAll(1, calls);
  EXPECT_EQ(VersionOf(std::move(third)), 3);
}

TEST_F(StepStreamTest, AServerThatEndsAStreamInPeaceHasNotAnswered) {
  std::future<Answer> step = Step(1);
  coordinator_.AwaitMessage(0, 0);
  coordinator_.listener(0)->OnClosed(absl::OkStatus());
  EXPECT_THAT(step.get(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(StepStreamTest, WhatIsNoAnswerEndsTheStream) {
  std::future<Answer> step = Step(1);
  coordinator_.AwaitMessage(0, 0);
  const grpc::Slice slice("\x0f\xff");
  coordinator_.listener(0)->OnReceived(grpc::ByteBuffer(&slice, 1));
  EXPECT_THAT(step.get(), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(StepStreamTest, AFullStreamIsFollowedByAnother) {
  for (int i = 0; i < kMaxOpenSteps; ++i) {
    EXPECT_THAT(Step(1, absl::Milliseconds(1)).get(),
                StatusIs(absl::StatusCode::kDeadlineExceeded));
  }
  EXPECT_EQ(coordinator_.opened(), 1);
  std::future<Answer> step = Step(2);
  coordinator_.AnswerAll(1, coordinator_.AwaitMessage(1, 0));
  EXPECT_EQ(VersionOf(std::move(step)), 2);
  EXPECT_TRUE(coordinator_.destroyed(0));
}

}  // namespace
}  // namespace shardstep::internal
