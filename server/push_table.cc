#include "shardstep/server/push_table.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/faults.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr size_t kMaxLivePushes = 1024;
constexpr size_t kRemembered = 64;
constexpr int kRetryDelayMs = 50;

absl::Status SequenceReused(const Push& push) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("push ", push.sequence, " of session ", push.session,
                                ": was sent before with other bytes"),
                   v1::SEQ_REUSE);
}

}  // namespace

void PushTable::SetLayout(std::shared_ptr<const Layout> layout) {
  layout_ = std::move(layout);
  extended_.clear();
  for (auto& [number, session] : sessions_) session.pushes.clear();
}

void PushTable::ExtendLayout(std::shared_ptr<const Layout> layout) {
  extended_.push_back(std::exchange(layout_, std::move(layout)));
}

void PushTable::Announce(const v1::AnnounceSessions::Session& announced) {
  newest_ = std::max(newest_, announced.session());
  uint64_t& live = live_[announced.trainer_rank()];
  if (live != announced.session()) {
    // Only the newest number of a rank can push, so the older one need not be remembered: any
    // number at or below `newest_` that is not in the table is dead.
    if (live > announced.session()) return;
    sessions_.erase(live);
    live = announced.session();
  }
  Session& session = sessions_[live];
  session.trainer_rank = announced.trainer_rank();
  session.dead = announced.closed();
  session.given = GivenBy(announced);
  if (session.dead) session.pushes.clear();
}

absl::StatusOr<PushTable::Session*> PushTable::Find(uint64_t number) {
  auto found = sessions_.find(number);
  if (found != sessions_.end() && !found->second.dead) return &found->second;
  if (number > newest_) {
    return absl::UnavailableError(
        absl::StrCat("session ", number, " is not known to this server yet"));
  }
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("session ", number,
                                " was replaced by a newer session of its trainer rank, or closed"),
                   v1::FENCED);
}

absl::StatusOr<std::shared_ptr<Push>> PushTable::Begin(const v1::Begin& begin) {
  const v1::CallHeader& header = begin.header();
  SHARDSTEP_ASSIGN_OR_RETURN(Session * session, Find(header.session()));
  if (header.sequence() == 0) return absl::InvalidArgumentError("a push has no sequence");
  if (!std::isfinite(begin.weight()) || begin.weight() <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("push ", header.sequence(), ": weight ",
                                                   begin.weight(),
                                                   ", expected a finite number above 0"));
  }
  DropBelow(header.session(), header.first_live_push());
  auto push = std::make_shared<Push>(layout_, budget_);
  push->session = header.session();
  push->sequence = header.sequence();
  push->weight = begin.weight();
  push->computed_on = begin.computed_on();
  push->repeat = (header.sequence() < session->first_live && !SHARDSTEP_BUG("apply_late_push")) ||
                 session->pushes.count(header.sequence()) > 0;
  if (push->repeat) return push;
  if (session->pushes.size() >= kMaxLivePushes) {
    return absl::ResourceExhaustedError(absl::StrCat("session ", header.session(), " has ",
                                                     session->pushes.size(),
                                                     " pushes that no step consumed"));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckReserve(*session));
  return push;
}

absl::Status PushTable::CheckReserve(const Session& session) const {
  const v1::Mode& mode = layout_->description.definition().mode();
  if (!mode.has_synchronous() || session.pushes.empty()) return absl::OkStatus();
  int64_t missing = mode.synchronous().trainers();
  for (const auto& [rank, number] : live_) {
    const auto found = sessions_.find(number);
    if (found != sessions_.end() && !found->second.pushes.empty()) --missing;
  }
  const int64_t free = budget_->limit() - budget_->used();
  int64_t push_bytes = layout_->local_bytes;
  for (const LocalShardInfo& shard : layout_->local) {
    if (by_rows_) push_bytes += shard.rows * static_cast<int64_t>(kRowNumberBytes);
  }
  const int64_t needed = (missing + 1) * push_bytes;
  if (needed <= free) return absl::OkStatus();
  v1::ErrorDetail detail;
  detail.set_retry_delay_ms(kRetryDelayMs);
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat(free, " bytes are left of --push-memory; ", missing,
                                " trainer ranks that have not pushed yet come first"),
                   detail);
}

absl::Status PushTable::End(const std::shared_ptr<Push>& push, const v1::End& end) {
  SHARDSTEP_ASSIGN_OR_RETURN(Session * session, Find(push->session));
  const Layout* of = &push->assembly.layout();
  if (of != layout_.get() && std::none_of(extended_.begin(), extended_.end(),
                                          [of](const auto& old) { return old.get() == of; })) {
    return absl::UnavailableError("the optimizer changed while the push arrived");
  }
  if (push->sequence < session->first_live && !SHARDSTEP_BUG("apply_late_push")) {
    auto consumed = session->consumed.find(push->sequence);
    if (consumed != session->consumed.end() && consumed->second != end.digest()) {
      return SequenceReused(*push);
    }
    return absl::OkStatus();
  }
  auto earlier = session->pushes.find(push->sequence);
  if (earlier != session->pushes.end()) {
    if (earlier->second->assembly.digest() != end.digest() ||
        earlier->second->touched != end.touched() || earlier->second->rows != end.rows()) {
      return SequenceReused(*push);
    }
    return absl::OkStatus();
  }
  if (push->repeat) return absl::UnavailableError("the push was dropped while it was repeated");
  SHARDSTEP_RETURN_IF_ERROR(push->assembly.CheckEnd(end.frames(), end.digest()));
  push->touched = end.touched();
  push->rows = end.rows();
  SHARDSTEP_RETURN_IF_ERROR(CheckRows(*push));
  SHARDSTEP_RETURN_IF_ERROR(CheckCoverage(*push, session->given));
  by_rows_ = by_rows_ || !push->rows.empty();
  // The other regions of a shard are other sessions': this one adds nothing there.
  push->assembly.ZeroGaps();
  session->pushes.emplace(push->sequence, push);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::shared_ptr<const Push>>> PushTable::Collect(
    const v1::Contribution& contribution, std::vector<v1::PushRange>* missing) const {
  std::vector<std::shared_ptr<const Push>> pushes;
  const v1::PushRange& range = contribution.pushes();
  auto session = sessions_.find(range.session());
  const bool live = session != sessions_.end() && !session->second.dead;
  const std::vector<uint64_t> sent = SentHere(contribution);
  for (const uint64_t sequence : sent) {
    const std::map<uint64_t, std::shared_ptr<Push>>* table =
        live ? &session->second.pushes : nullptr;
    auto found = live ? table->find(sequence) : decltype(table->end()){};
    if (live && found != table->end()) {
      if (found->second->weight != contribution.weight()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "trainer rank ", contribution.trainer_rank(), ": push ", sequence, " has weight ",
            found->second->weight, ", its step says ", contribution.weight()));
      }
      pushes.push_back(found->second);
    } else if (!missing->empty() && missing->back().session() == range.session() &&
               missing->back().last() + 1 == sequence) {
      missing->back().set_last(sequence);
    } else {
      v1::PushRange lacking;
      lacking.set_session(range.session());
      lacking.set_first(sequence);
      lacking.set_last(sequence);
      missing->push_back(lacking);
    }
  }
  if (contribution.has_partial() && pushes.size() == sent.size()) {
    SHARDSTEP_RETURN_IF_ERROR(CheckPartial(contribution, pushes, *layout_));
  }
  return pushes;
}

std::vector<uint64_t> PushTable::SentHere(const v1::Contribution& contribution) const {
  const v1::PushRange& range = contribution.pushes();
  std::vector<uint64_t> sequences;
  if (!contribution.has_partial()) {
    const uint64_t first = SHARDSTEP_BUG("apply_late_push") ? FirstKept(range) : range.first();
    for (uint64_t sequence = first; sequence <= range.last(); ++sequence) {
      sequences.push_back(sequence);
    }
    return sequences;
  }
  for (const v1::PartialPushes::SentTo& sent : contribution.partial().sent_to()) {
    if (sent.server_rank() != layout_->server_rank) continue;
    sequences.assign(sent.sequences().begin(), sent.sequences().end());
  }
  return sequences;
}

uint64_t PushTable::FirstKept(const v1::PushRange& range) const {
  const auto session = sessions_.find(range.session());
  if (session == sessions_.end() || session->second.pushes.empty()) return range.first();
  return std::min(range.first(), session->second.pushes.begin()->first);
}

void PushTable::DropBelow(uint64_t number, uint64_t sequence) {
  auto found = sessions_.find(number);
  if (found == sessions_.end()) return;
  Session& session = found->second;
  while (!session.pushes.empty() && session.pushes.begin()->first < sequence) {
    const auto& [dropped, push] = *session.pushes.begin();
    session.consumed.emplace(dropped, push->assembly.digest());
    session.pushes.erase(session.pushes.begin());
  }
  while (session.consumed.size() > kRemembered) session.consumed.erase(session.consumed.begin());
  session.first_live = std::max(session.first_live, sequence);
}

}  // namespace shardstep
