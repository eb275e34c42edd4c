#include "shardstep/tests/simulation/sim_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/chain_hash.h"
#include "shardstep/tests/simulation/sim_network.h"

namespace shardstep {

SimStream::SimStream(Simulation* simulation, SimNetwork* network, Process* caller, Process* callee)
    : simulation_(simulation), network_(network) {
  sides_[kCaller].process = caller;
  sides_[kCallee].process = callee;
  for (Party& party : sides_) party.life = party.process->life();
}

void SimStream::SetEnd(Side side, End end) { sides_[side].end = std::move(end); }

void SimStream::Begin(absl::Duration late, std::function<void()> accept) {
  Party& callee = sides_[kCallee];
  const absl::Duration delay = late + network_->Delay(sides_[kCaller].process, callee.process);
  callee.last_arrival = simulation_->now() + delay;
  simulation_->After(delay, callee.process, "accept", std::move(accept));
}

void SimStream::Send(Side from, std::string message) {
  const Party& sender = sides_[from];
  Party& receiver = sides_[1 - from];
  if (broken_ || !sender.process->lives(sender.life)) return;
  const absl::Time now = simulation_->now();
  receiver.last_arrival =
      std::max(receiver.last_arrival, now + network_->Delay(sender.process, receiver.process));
  simulation_->Trace(absl::StrCat(sender.process->name(), " > ", receiver.process->name(), " ",
                                  message.size(), " ", ChainHash(kEmptyChain, message)));
  simulation_->After(receiver.last_arrival - now, receiver.process, "message",
                     [self = shared_from_this(), from, message = std::move(message)] {
                       const Party& party = self->sides_[1 - from];
                       if (self->broken_ && !(self->lingers_ && from == kCaller)) return;
                       // A copy: the message may end the stream.
                       const auto take = party.end.message;
                       if (take && party.process->lives(party.life)) take(message);
                     });
  if (network_->Breaks()) Break();
}

void SimStream::Break(absl::Status why) {
  if (broken_) return;
  broken_ = true;
  lingers_ = simulation_->random().Chance(0.5);
  const absl::Time now = simulation_->now();
  for (const Side side : {kCaller, kCallee}) {
    Party& party = sides_[side];
    absl::Duration delay = network_->Delay(sides_[1 - side].process, party.process);
    if (side == kCallee && lingers_) delay = std::max(delay, party.last_arrival - now);
    simulation_->After(delay, party.process, "closed", [self = shared_from_this(), side, why] {
      Party& party = self->sides_[side];
      const End end = std::exchange(party.end, {});
      if (end.closed && party.process->lives(party.life)) end.closed(why);
    });
  }
}

void SimStream::DropEnd(const Process* process) {
  for (Party& party : sides_) {
    if (party.process == process) party.end = {};
  }
}

}  // namespace shardstep
