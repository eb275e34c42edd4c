#include "shardstep/tests/simulation/sim_network.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "shardstep/server/chain_hash.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr absl::Duration kLeastDelay = absl::Microseconds(50);
constexpr absl::Duration kShortestWait = absl::Milliseconds(500);

template <typename T>
void DropExpired(std::vector<std::weak_ptr<T>>* all) {
  all->erase(
      std::remove_if(all->begin(), all->end(), [](const auto& weak) { return weak.expired(); }),
      all->end());
}

// As a status travels.
absl::Status Travelled(const absl::Status& status) {
  v1::RichStatus rich;
  rich.ParseFromString(ToRichStatus(status).SerializeAsString());
  return FromRichStatus(rich);
}

}  // namespace

SimNetwork::~SimNetwork() {
  // Ends may hold their streams.
  for (const auto& weak : streams_) {
    if (const auto stream = weak.lock()) stream->DropEnds();
  }
}

void SimNetwork::Clog(const Process* from, const Process* to, absl::Duration duration) {
  absl::Time& until = clogs_[{from, to}];
  until = std::max(until, simulation_->now() + duration);
}

void SimNetwork::Cut(const Process* process) {
  for (const auto& weak : streams_) {
    const auto stream = weak.lock();
    if (stream != nullptr && stream->touches(process)) stream->Break();
  }
}

void SimNetwork::Heal() {
  faults_ = NetworkFaults();
  clogs_.clear();
}

absl::Duration SimNetwork::Delay(const Process* from, const Process* to) {
  Random& random = simulation_->random();
  absl::Duration delay = random.Between(kLeastDelay, faults_.usual);
  if (random.Chance(faults_.late)) delay += random.Between(absl::ZeroDuration(), faults_.latest);
  const auto clog = clogs_.find({from, to});
  if (clog != clogs_.end()) {
    delay += std::max(absl::ZeroDuration(), clog->second - simulation_->now());
  }
  return delay;
}

// ---- calls

void SimNetwork::CallBytes(Process* caller, SimService* server, Method method, std::string request,
                           absl::Duration timeout, Reply<std::string> reply) {
  Process* const callee = server->process();
  auto call = std::make_shared<OpenCall>();
  call->caller = caller;
  call->callee = callee;
  call->reply = std::move(reply);
  DropExpired(&calls_);
  calls_.push_back(call);
  const absl::Time deadline = simulation_->now() + timeout;
  simulation_->Trace(absl::StrCat(caller->name(), " calls ", callee->name(), " ",
                                  static_cast<int>(method), " ", ChainHash(kEmptyChain, request)));
  simulation_->After(timeout, caller, "deadline",
                     [this, call] { Answer(call, absl::DeadlineExceededError("no answer")); });
  Random& random = simulation_->random();
  const int copies = Repeats() ? 2 : 1;
  if (copies == 2) simulation_->probes().Hit("call_repeated");
  for (int copy = 0; copy < copies; ++copy) {
    if (random.Chance(faults_.lost)) {
      simulation_->probes().Hit("call_lost");
      continue;
    }
    if (!callee->alive()) {
      simulation_->After(Delay(callee, caller), caller, "refused", [this, call] {
        Answer(call, absl::UnavailableError("connection refused"));
      });
      continue;
    }
    simulation_->After(Delay(caller, callee), callee, "call",
                       [=] { Deliver(call, server, method, request, deadline); });
  }
}

void SimNetwork::Deliver(const OpenCallPtr& call, SimService* server, Method method,
                         const std::string& request, absl::Time deadline) {
  Process* const callee = server->process();
  const uint64_t life = callee->life();
  const absl::Time delivered = simulation_->now();
  if (delivered >= deadline) return;
  auto answered = std::make_shared<bool>(false);
  server->Serve(
      method, request, deadline - delivered, [call] { return !call->reply; },
      [=](const absl::StatusOr<std::string>& answer) {
        if (!callee->lives(life)) return;
        if (*answered) return simulation_->Fail("wrong", "a call was answered twice");
        *answered = true;
        if (simulation_->random().Chance(faults_.lost)) {
          return simulation_->probes().Hit("reply_lost");
        }
        const absl::StatusOr<std::string> travelled =
            answer.ok() ? answer : absl::StatusOr<std::string>(Travelled(answer.status()));
        simulation_->After(Delay(callee, call->caller), call->caller, "reply",
                           [this, call, travelled] { Answer(call, travelled); });
      });
  // A server looks at its callers a few times a second.
  if (deadline - delivered < kShortestWait) return;
  simulation_->After(deadline - delivered, nullptr, "call is over", [=] {
    // Who has an answer of another copy need not get one of this.
    if (*answered || !call->reply || !callee->lives(life) || callee->held_until() > delivered) {
      return;
    }
    simulation_->Fail("unanswered", absl::StrCat(callee->name(), " did not answer call ",
                                                 static_cast<int>(method), " of ",
                                                 call->caller->name(), " before its deadline"));
  });
}

void SimNetwork::Answer(const OpenCallPtr& call, const absl::StatusOr<std::string>& answer) {
  const Reply<std::string> reply = std::exchange(call->reply, nullptr);
  if (!reply) {
    if (answer.ok() && *answer == call->answer) simulation_->probes().Hit("recorded_reply_given");
    return;
  }
  if (answer.ok()) call->answer = *answer;
  simulation_->Trace(absl::StrCat(
      call->caller->name(), " hears ",
      answer.ok() ? absl::StrCat(ChainHash(kEmptyChain, *answer)) : answer.status().ToString()));
  reply(answer);
}

// ---- streams

std::shared_ptr<SimStream> SimNetwork::Open(Process* caller, SimService* server, StreamKind kind,
                                            SimStream::End end, absl::Duration late) {
  auto stream = std::make_shared<SimStream>(simulation_, this, caller, server->process());
  stream->SetEnd(SimStream::kCaller, std::move(end));
  DropExpired(&streams_);
  streams_.push_back(stream);
  if (!server->process()->alive()) {
    stream->Break();
    return stream;
  }
  stream->Begin(late, [=] {
    if (!stream->broken()) stream->SetEnd(SimStream::kCallee, server->Accept(kind, stream));
  });
  return stream;
}

// ---- deaths

void SimNetwork::OnDeath(const Process* process) {
  Cut(process);
  for (const auto& weak : calls_) {
    const auto call = weak.lock();
    if (call == nullptr || call->callee != process || !call->caller->alive()) continue;
    // Else its caller finds out by its deadline.
    if (!simulation_->random().Chance(0.7)) continue;
    simulation_->After(Delay(process, call->caller), call->caller, "reset",
                       [this, call] { Answer(call, absl::UnavailableError("connection reset")); });
  }
}

void SimNetwork::Forget(const Process* process) {
  for (const auto& weak : streams_) {
    const auto stream = weak.lock();
    if (stream != nullptr && stream->touches(process)) stream->DropEnd(process);
  }
}

}  // namespace shardstep
