#include "shardstep/tests/simulation/wire_observer.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

// Beginnings of messages are enough for a trace.
constexpr size_t kLongest = 400;

template <typename Message>
std::string ForPeople(const Message& message) {
  return message.ShortDebugString().substr(0, kLongest);
}

}  // namespace

void WireObserver::OnPeerMessage(const v1::PeerMessage& message) {
  if (simulation_->printing()) {
    simulation_->Trace(absl::StrCat("message ", ForPeople(message)));
  }
  if (message.has_hello()) {
    const uint64_t coordinator = message.hello().coordinator_incarnation();
    if (coordinator < coordinator_) simulation_->probes().Hit("hello_of_replaced_coordinator");
    coordinator_ = std::max(coordinator_, coordinator);
  } else if (message.has_prepare() && message.prepare().has_staged() && ledger_ != nullptr) {
    ledger_->Begun(message.prepare().staged().lineage(), message.prepare().version());
  } else if (message.has_commit()) {
    OnCommit(message.commit());
  }
}

void WireObserver::OnCommit(const v1::Commit& commit) {
  const Number ballot = Of(commit.ballot());
  const bool abort = commit.decision().outcome() == v1::Decision::ABORT;
  if (abort && !in_doubt_.empty() && ballot.first == coordinator_) {
    simulation_->probes().Hit("in_doubt_aborted");
  } else if (!abort && ballot.first < coordinator_ && in_doubt_.count(ballot) > 0) {
    simulation_->probes().Hit("in_doubt_committed");
  }
  if (abort) in_doubt_.clear();
  if (!abort && !decided_.insert(ballot).second && ballot.first < coordinator_) {
    simulation_->probes().Hit("decision_sent_by_successor");
  }
}

bool WireObserver::Follows(int server, uint64_t coordinator_incarnation) const {
  const auto found = followed_.find(server);
  return found != followed_.end() && found->second >= coordinator_incarnation;
}

void WireObserver::OnPeerReply(int server, uint64_t coordinator_incarnation,
                               const v1::PeerReply& reply) {
  if (simulation_->printing()) {
    simulation_->Trace(absl::StrCat("server ", server, " says ", ForPeople(reply)));
  }
  if (reply.has_welcome()) {
    uint64_t& followed = followed_[server];
    followed = std::max(followed, coordinator_incarnation);
  }
  if (reply.has_welcome() || reply.has_standing()) {
    const v1::PeerWelcome& welcome = reply.has_welcome() ? reply.welcome() : reply.standing();
    if (!welcome.in_doubt().empty()) simulation_->probes().Hit("welcome_with_in_doubt");
    if (!welcome.decided().empty()) simulation_->probes().Hit("welcome_with_decided");
    if (welcome.shards_lost()) simulation_->probes().Hit("welcome_with_shards_lost");
    for (const v1::PeerWelcome::InDoubt& in_doubt : welcome.in_doubt()) {
      in_doubt_.insert(Of(in_doubt.answer().ballot()));
    }
    if (welcome.has_memory()) memory_bytes_ = welcome.memory().ByteSizeLong();
  } else if (reply.has_prepared()) {
    if (!reply.prepared().missing().empty()) simulation_->probes().Hit("prepare_missed_pushes");
    const bool full =
        reply.prepared().error().code() == static_cast<int>(absl::StatusCode::kResourceExhausted);
    if (full) simulation_->probes().Hit("prepare_refused_on_full_disk");
  }
}

}  // namespace shardstep
