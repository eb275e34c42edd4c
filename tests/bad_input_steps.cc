// Calls of Step on a stream of many: what is refused there, and what is not.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "shardstep/tests/bad_input.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/status.h"

namespace shardstep {
namespace {

class BadStepsTest : public BadInputTest {};

// Calls of Step on one stream, each by its id.
class StepsStream {
 public:
  explicit StepsStream(v1::Coordinator::Stub& coordinator) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    stream_ = coordinator.Steps(&context_);
  }

  static void Add(v1::StepCalls* calls, uint64_t id, const v1::StepRequest& request,
                  uint32_t timeout_ms = 20'000) {
    v1::StepCalls::Call& call = *calls->add_calls();
    call.set_id(id);
    *call.mutable_request() = request;
    call.set_timeout_ms(timeout_ms);
  }
  bool Send(const v1::StepCalls& calls) { return stream_->Write(calls); }
  void CloseSending() { stream_->WritesDone(); }

  // The next `count` answers, in their order; fewer if the stream ended.
  std::vector<v1::StepAnswers::Answer> Read(size_t count) {
    std::vector<v1::StepAnswers::Answer> answers;
    v1::StepAnswers message;
    while (answers.size() < count && stream_->Read(&message)) {
      answers.insert(answers.end(), message.answers().begin(), message.answers().end());
    }
    return answers;
  }
  absl::Status Finish() { return FromGrpcStatus(stream_->Finish()); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::StepCalls, v1::StepAnswers>> stream_;
};

// An error is its call's answer; the others on the stream are served.
TEST_F(BadStepsTest, StepsOnOneStream) {
  StepsStream stream(trainer_->coordinator());
  v1::StepCalls calls;
  v1::StepRequest nobody = NextStep();
  nobody.mutable_header()->set_optimizer("nobody");
  v1::StepRequest weight = NextStep();
  weight.set_weight(-1);
  StepsStream::Add(&calls, 5, nobody);
  StepsStream::Add(&calls, 4, weight);
  StepsStream::Add(&calls, 3, NextStep(), /*timeout_ms=*/0);
  StepsStream::Add(&calls, 2, NextStep(), 3'600'000);
  calls.add_calls();  // nothing at all
  StepsStream::Add(&calls, UINT64_MAX, trainer_->MakeStep(steps_, 1, 0));
  ASSERT_TRUE(stream.Send(calls));
  std::map<uint64_t, v1::StepAnswers::Answer> answers;
  for (const auto& answer : stream.Read(6)) answers[answer.id()] = answer;
  ASSERT_EQ(answers.size(), 6);
  const auto status = [&](uint64_t id) { return FromRichStatus(answers[id].status()); };
  EXPECT_EQ(ReasonOf(status(5)), v1::NO_OPTIMIZER);
  EXPECT_THAT(status(4), StatusIs(kInvalid, testing::HasSubstr("weight -1")));
  for (const uint64_t id : {3, 2, 0}) EXPECT_EQ(ReasonOf(status(id)), v1::DEADLINE_REQUIRED) << id;
  // Made before, with its push.
  EXPECT_EQ(ReasonOf(status(UINT64_MAX)), v1::SEQ_REUSE);
  calls.Clear();
  StepsStream::Add(&calls, 1, trainer_->MakeStep(steps_, steps_, steps_));
  ASSERT_TRUE(stream.Send(calls));
  const auto repeated = stream.Read(1);
  ASSERT_EQ(repeated.size(), 1);
  EXPECT_OK(FromRichStatus(repeated[0].status()));
  EXPECT_EQ(repeated[0].reply().committed().version(), steps_);

  calls.Clear();
  for (int i = 0; i <= kMaxOpenSteps; ++i) StepsStream::Add(&calls, i, weight);
  ASSERT_TRUE(stream.Send(calls));
  EXPECT_TRUE(stream.Read(1).empty());
  EXPECT_THAT(stream.Finish(), StatusIs(kInvalid, testing::HasSubstr("257 calls")));
  ExpectHealthy();
}

// A client that sends no more still gets its answers.
TEST_F(BadStepsTest, StepsOfAClientThatSendsNoMore) {
  StepsStream stream(trainer_->coordinator());
  v1::StepCalls calls;
  v1::StepRequest early = NextStep();
  early.mutable_header()->set_sequence(steps_ + 2);
  StepsStream::Add(&calls, 1, early, /*timeout_ms=*/500);
  early.mutable_header()->set_sequence(steps_ + 3);
  StepsStream::Add(&calls, 2, early, /*timeout_ms=*/1'000);
  ASSERT_TRUE(stream.Send(calls));
  stream.CloseSending();
  const auto answers = stream.Read(3);
  ASSERT_EQ(answers.size(), 2);
  EXPECT_EQ(answers[0].id(), 1);
  EXPECT_TRUE(answers[0].reply().has_waiting());
  EXPECT_EQ(answers[1].id(), 2);
  EXPECT_OK(stream.Finish());
  ExpectHealthy();
}

// While as many calls are open as may be, no more is read.
TEST_F(BadStepsTest, AFullStreamOfSteps) {
  StepsStream stream(trainer_->coordinator());
  v1::StepCalls calls;
  // Each waits for the one before it, and the first for one that does not come.
  for (int i = 0; i < kMaxOpenSteps; ++i) {
    v1::StepRequest early = NextStep();
    early.mutable_header()->set_sequence(steps_ + 2 + i);
    StepsStream::Add(&calls, i, early, /*timeout_ms=*/1'000);
  }
  ASSERT_TRUE(stream.Send(calls));
  v1::StepRequest weight = NextStep();
  weight.set_weight(-1);
  calls.Clear();
  StepsStream::Add(&calls, 999, weight);
  ASSERT_TRUE(stream.Send(calls));
  const auto answers = stream.Read(kMaxOpenSteps + 1);
  ASSERT_EQ(answers.size(), kMaxOpenSteps + 1);
  EXPECT_TRUE(answers[0].reply().has_waiting());
  EXPECT_NE(answers[0].id(), 999);
  EXPECT_EQ(std::count_if(answers.begin(), answers.end(),
                          [](const auto& answer) { return answer.reply().has_waiting(); }),
            kMaxOpenSteps);
  ExpectHealthy();
}

}  // namespace
}  // namespace shardstep
