#include "shardstep/server/rpc/step_stream.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/server/caller.h"
#include "shardstep/server/node.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/deadline.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

void StepStream::Close(const absl::Status& status) {
  bool resume = false;
  {
    MutexLock lock(&mutex_);
    if (open_ > 0 && !absl::IsCancelled(status)) {
      if (!ending_.has_value()) ending_ = status;
      return;
    }
    closed_ = true;
    resume = !std::exchange(reads_, true);
  }
  BidiStream::Close(status);
  if (resume) ReadNext();
}

void StepStream::OnMessage(v1::StepCalls& message) {
  if (message.calls_size() > kMaxOpenSteps) {
    BidiStream::Close(absl::InvalidArgumentError(
        absl::StrCat("Steps: ", message.calls_size(), " calls in one message, expected at most ",
                     kMaxOpenSteps)));
    return ReadNext();
  }
  {
    MutexLock lock(&mutex_);
    open_ += message.calls_size();
  }
  std::map<std::shared_ptr<Coordinator>, std::vector<Coordinator::CalledStep>> called_on;
  for (v1::StepCalls::Call& call : *message.mutable_calls()) {
    const absl::Duration timeout = absl::Milliseconds(call.timeout_ms());
    auto coordinator = FindCoordinator(call.request().header(), timeout);
    if (!coordinator.ok()) {
      Answer(call.id(), coordinator.status());
      continue;
    }
    Coordinator::CalledStep& called = called_on[*std::move(coordinator)].emplace_back();
    called.request = std::move(*call.mutable_request());
    called.caller.answer_by = AnswerBy(state_->clock().Now(), timeout);
    called.caller.gone = [self = shared_from_this()] { return self->closed(); };
    called.reply = [self = shared_from_this(), id = call.id()](
                       absl::StatusOr<v1::StepReply> reply) { self->Answer(id, std::move(reply)); };
  }
  bool read = false;
  {
    MutexLock lock(&mutex_);
    read = reads_ = open_ < kMaxOpenSteps || closed_;
  }
  // First: a coordinator that is at work keeps the thread that hands it a task.
  if (read) ReadNext();
  for (auto& [coordinator, called] : called_on) coordinator->Step(std::move(called));
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
  std::optional<absl::Status> ending;
  {
    MutexLock lock(&mutex_);
    --open_;
    if (open_ == 0) ending = ending_;
    if (!ending.has_value()) {
      if (reads_ || open_ >= kMaxOpenSteps) return;
      reads_ = true;
    }
  }
  if (ending.has_value()) return Close(*ending);
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
