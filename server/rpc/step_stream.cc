#include "shardstep/server/rpc/step_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/server/caller.h"
#include "shardstep/server/node.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/deadline.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

void StepStream::OnMessage(v1::StepCalls& message) {
  if (message.calls_size() > kMaxOpenSteps) {
    Close(absl::InvalidArgumentError(absl::StrCat("Steps: ", message.calls_size(),
                                                  " calls in one message, expected at most ",
                                                  kMaxOpenSteps)));
    return ReadNext();
  }
  {
    MutexLock lock(&mutex_);
    open_ += message.calls_size();
  }
  for (v1::StepCalls::Call& call : *message.mutable_calls()) Begin(std::move(call));
  {
    MutexLock lock(&mutex_);
    reads_ = open_ < kMaxOpenSteps;
    if (!reads_) return;
  }
  ReadNext();
}

void StepStream::Begin(v1::StepCalls::Call call) {
  const uint64_t id = call.id();
  const absl::Duration timeout = absl::Milliseconds(call.timeout_ms());
  const auto coordinator = FindCoordinator(call.request().header(), timeout);
  if (!coordinator.ok()) return Answer(id, coordinator.status());
  Caller caller;
  caller.answer_by = AnswerBy(state_->clock().Now(), timeout);
  caller.gone = [self = shared_from_this()] { return self->closed(); };
  (*coordinator)
      ->Step(std::move(*call.mutable_request()), std::move(caller),
             [self = shared_from_this(), id](absl::StatusOr<v1::StepReply> reply) {
               self->Answer(id, std::move(reply));
             });
}

absl::StatusOr<std::shared_ptr<Coordinator>> StepStream::FindCoordinator(
    const v1::CallHeader& header, absl::Duration timeout) const {
  const absl::Time now = absl::Now();
  const absl::Time deadline =
      timeout > absl::ZeroDuration() ? now + timeout : absl::InfiniteFuture();
  SHARDSTEP_RETURN_IF_ERROR(CheckDeadline("Step", deadline, now));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, state_->Serving());
  return node->FindCoordinator(header.optimizer(), /*create=*/false);
}

void StepStream::Answer(uint64_t id, absl::StatusOr<v1::StepReply> reply) {
  v1::StepAnswers answers;
  v1::StepAnswers::Answer& answer = *answers.add_answers();
  answer.set_id(id);
  *answer.mutable_status() = ToRichStatus(reply.status());
  if (reply.ok()) *answer.mutable_reply() = *std::move(reply);
  Send(std::move(answers));
  {
    MutexLock lock(&mutex_);
    --open_;
    if (reads_ || open_ >= kMaxOpenSteps) return;
    reads_ = true;
  }
  ReadNext();
}

v1::StepAnswers StepStream::TakeNext(std::deque<v1::StepAnswers>* queue) {
  v1::StepAnswers together = std::move(queue->front());
  queue->pop_front();
  size_t bytes = together.ByteSizeLong();
  while (!queue->empty() && (bytes += queue->front().ByteSizeLong()) <= kMaxPageBytes) {
    *together.add_answers() = std::move(*queue->front().mutable_answers(0));
    queue->pop_front();
  }
  return together;
}

}  // namespace shardstep
