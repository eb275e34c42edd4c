// Sessions: who is a trainer rank.

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/faults.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

constexpr int kMaxRegions = 1'000'000;

}  // namespace

void Coordinator::Announce(const std::vector<const Session*>& sessions) {
  v1::PeerMessage message;
  for (const Session* session : sessions) {
    v1::AnnounceSessions::Session* announced = message.mutable_sessions()->add_sessions();
    announced->set_trainer_rank(session->trainer_rank);
    announced->set_session(session->number);
    announced->set_closed(session->closed);
    announced->set_instance(session->instance);
    for (const v1::DeclaredRegion& region : session->regions) *announced->add_regions() = region;
  }
  Broadcast(message);
}

void Coordinator::AwaitAll(Session* session) {
  for (int server = 0; server < env_.servers; ++server) session->unaware.insert(server);
}

void Coordinator::OpenSession(v1::OpenSessionRequest request, Caller caller,
                              Reply<v1::OpenSessionReply> reply) {
  Run([this, request = std::move(request), caller = std::move(caller), reply = std::move(reply)] {
    if (draining_) return reply(absl::UnavailableError("the server is shutting down"));
    if (state_ == State::kRecovering) return reply(Recovering());
    if (state_ == State::kLost) return reply(LostStatus());
    if (request.regions_size() > kMaxRegions) {
      return reply(absl::InvalidArgumentError(absl::StrCat(
          request.regions_size(), " declared regions, expected at most ", kMaxRegions)));
    }
    for (const v1::DeclaredRegion& region : request.regions()) {
      const absl::Status valid = RegionFromProto(region.region()).status();
      if (!valid.ok()) return reply(valid);
    }
    if (state_ == State::kLive) {
      const auto* synchronous = std::get_if<Synchronous>(&definition_.mode);
      if (synchronous != nullptr && request.trainer_rank() >= synchronous->trainers) {
        return reply(absl::InvalidArgumentError(
            absl::StrCat("optimizer \"", name_, "\": trainer rank ", request.trainer_rank(),
                         ", expected 0 to ", synchronous->trainers - 1)));
      }
    }
    if (sessions_.WasReplaced(request.trainer_rank(), request.instance())) {
      return reply(Fenced(Facts(), 0, "was replaced by a newer one of its trainer rank"));
    }
    uint64_t replaced = 0;
    auto opened = sessions_.Open(request.trainer_rank(), request.instance(),
                                 {request.regions().begin(), request.regions().end()}, &replaced);
    if (!opened.ok()) return reply(opened.status());
    Session* session = *opened;
    if (!session->announced) {
      if (replaced != 0) {
        calls_.Forget(replaced, UINT64_MAX);
        EndSession(replaced, Fenced(Facts(), replaced, "was replaced by a newer session"));
      }
      AwaitAll(session);
      Announce({session});
      SHARDSTEP_PASS("coordinator.session_announced");
      session->announced = true;
    }
    opening_.push_back({session->number, caller, reply});
    AnswerOpenSessions();
  });
}

void Coordinator::OnSessionsKnown(int server, const v1::SessionsKnown& known) {
  for (const uint64_t number : known.sessions()) {
    Session* const session = sessions_.Find(number);
    if (session != nullptr) session->unaware.erase(server);
  }
  AnswerOpenSessions();
}

void Coordinator::AnswerOpenSessions() {
  std::vector<OpeningSession> still;
  for (OpeningSession& opening : std::exchange(opening_, {})) {
    const Session* session = sessions_.Find(opening.session);
    if (session == nullptr) {
      opening.reply(Fenced(Facts(), opening.session, "was replaced by a newer session"));
      continue;
    }
    // The steps of the session before it that are prepared run to their end first, so that the
    // reply says how.
    const bool unsettled =
        std::any_of(open_.begin(), open_.end(),
                    [&](const auto& entry) {
                      return entry.second->trainer_rank == session->trainer_rank &&
                             entry.second->session != session->number;
                    }) ||
        pipeline_.HasStepOf(session->trainer_rank, session->number);
    if (session->unaware.empty() && !unsettled) {
      const LastCommit& last = calls_.last(session->trainer_rank);
      v1::OpenSessionReply reply;
      reply.set_session(session->number);
      reply.set_lease_ms(absl::ToInt64Milliseconds(sessions_.lease()));
      reply.set_last_call(last.call);
      reply.set_last_version(last.version);
      reply.set_trainer_state(last.trainer_state);
      reply.set_lineage(lineage_);
      for (const Link& link : links_) reply.add_incarnations(link.incarnation);
      opening.reply(reply);
    } else if (env_.clock->Now() >= opening.caller.answer_by) {
      opening.reply(absl::UnavailableError(
          unsettled
              ? "a step of the session before is under way"
              : absl::StrCat("waiting for server ", absl::StrJoin(session->unaware, ", server "),
                             " to learn of session ", opening.session)));
    } else {
      still.push_back(std::move(opening));
    }
  }
  // Replies may have led to further calls meanwhile.
  for (OpeningSession& opening : still) opening_.push_back(std::move(opening));
}

void Coordinator::RenewSession(v1::RenewSessionRequest request,
                               Reply<v1::RenewSessionReply> reply) {
  Run([this, request = std::move(request), reply = std::move(reply)] {
    const auto session = FindSession(request.header());
    if (!session.ok()) return reply(session.status());
    calls_.Forget((*session)->number, request.header().first_live_call());
    v1::RenewSessionReply renewed;
    renewed.set_version(pipeline_.committed());
    renewed.set_lineage(lineage_);
    reply(renewed);
  });
}

void Coordinator::CloseSession(v1::CloseSessionRequest request,
                               Reply<v1::CloseSessionReply> reply) {
  Run([this, request = std::move(request), reply = std::move(reply)] {
    Session* session = sessions_.Find(request.header().session());
    if (session != nullptr) {
      EndSession(session->number, Fenced(Facts(), session->number, "was closed"));
      session->closed = true;
      Announce({session});
    }
    reply(v1::CloseSessionReply());
  });
}

void Coordinator::EndSession(uint64_t number, const absl::Status& status) {
  std::vector<StepCallPtr> ended;
  for (const auto& [key, call] : open_) {
    if (key.first == number && !call->in_pipeline) ended.push_back(call);
  }
  for (const StepCallPtr& call : ended) FailCall(call, status);
  if (staged_ != nullptr && !staged_->preparing &&
      (staged_->handed.count(number) > 0 || staged_->whole_session == number)) {
    DropStaged(absl::OkStatus());
  }
}

v1::ListSessionsReply Coordinator::SessionList() {
  v1::ListSessionsReply list;
  const auto* synchronous =
      state_ == State::kLive ? std::get_if<Synchronous>(&definition_.mode) : nullptr;
  std::set<int> ranks;
  for (int rank = 0; synchronous != nullptr && rank < synchronous->trainers; ++rank) {
    ranks.insert(rank);
  }
  for (const auto& [rank, session] : sessions_.live()) ranks.insert(rank);
  const auto in_step = [&](int rank) {
    return std::any_of(open_.begin(), open_.end(),
                       [&](const auto& entry) { return entry.second->trainer_rank == rank; });
  };
  for (const int rank : ranks) {
    v1::ListSessionsReply::Session* entry = list.add_sessions();
    entry->set_trainer_rank(rank);
    entry->set_last_seen_ms(-1);
    entry->set_version(calls_.last(rank).version);
    entry->set_in_step(in_step(rank));
    entry->set_waited_for(synchronous != nullptr && !waiting_.empty() && !in_step(rank));
    const Session* session = sessions_.OfRank(rank);
    if (session == nullptr) continue;
    entry->set_session(session->number);
    entry->set_last_seen_ms(absl::ToInt64Milliseconds(env_.clock->Now() - session->last_seen));
    entry->set_lapsed(sessions_.Lapsed(*session));
  }
  return list;
}

void Coordinator::ListSessions(Reply<v1::ListSessionsReply> reply) {
  Run([this, reply = std::move(reply)] {
    if (state_ == State::kAbsent && sessions_.live().empty()) {
      return reply(NoSuchOptimizer(name_, {}));
    }
    reply(SessionList());
  });
}

}  // namespace shardstep
