#include "shardstep/tests/simulation/simulation.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace shardstep {

absl::Time Simulation::now() const {
  return current_ == nullptr ? now_ : std::max(now_, current_->held_until_);
}

void Simulation::Start(Process* process) {
  ++process->life_;
  process->alive_ = true;
  process->held_until_ = absl::InfinitePast();
  Trace(absl::StrCat(process->name(), " starts"));
}

void Simulation::Kill(Process* process) {
  process->alive_ = false;
  Trace(absl::StrCat(process->name(), " dies"));
}

void Simulation::Forget(Process* process) {
  // What the closures hold dies with them, and may ask for events.
  std::vector<std::function<void()>> forgotten;
  for (auto event = events_.begin(); event != events_.end();) {
    if (event->second.owner == process && !process->lives(event->second.life)) {
      forgotten.push_back(std::move(event->second.run));
      event = events_.erase(event);
    } else {
      ++event;
    }
  }
}

void Simulation::HoldUp(Process* process, absl::Duration duration) {
  process->held_until_ = std::max(process->held_until_, now_ + duration);
  Trace(absl::StrCat(process->name(), " is held up for ", absl::FormatDuration(duration)));
}

void Simulation::After(absl::Duration delay, Process* owner, const char* what,
                       std::function<void()> run) {
  events_[{now() + delay, ++last_number_}] = {owner, owner == nullptr ? 0 : owner->life(), what,
                                              std::move(run)};
}

bool Simulation::RunUntil(absl::Time end, const std::function<bool()>& done) {
  while (failures_.empty()) {
    if (done()) return true;
    if (events_.empty() || events_.begin()->first.first > end) {
      now_ = std::max(now_, end);
      return false;
    }
    auto next = events_.extract(events_.begin());
    now_ = std::max(now_, next.key().first);
    Event& event = next.mapped();
    if (event.owner != nullptr) {
      if (!event.owner->lives(event.life)) continue;
      if (event.owner->held_until_ > now_) {
        // Under its own number: what was sent in order comes in order.
        events_[{event.owner->held_until_, next.key().second}] = std::move(event);
        continue;
      }
    }
    ++handled_;
    Trace(absl::StrCat(next.key().second, " ", event.owner == nullptr ? "" : event.owner->name(),
                       " ", event.what));
    current_ = event.owner;
    event.run();
    event.run = nullptr;
    current_ = nullptr;
  }
  return false;
}

void Simulation::Trace(absl::string_view what) {
  const std::string line =
      absl::StrCat(absl::ToInt64Microseconds(now_ - absl::UnixEpoch()), " ", what, "\n");
  trace_hash_ = ChainHash(trace_hash_, line);
  if (print_) std::fputs(line.c_str(), stdout);
}

void Simulation::Fail(absl::string_view kind, absl::string_view what) {
  failures_.push_back(absl::StrCat(kind, ": ", what));
  Trace(failures_.back());
}

}  // namespace shardstep
