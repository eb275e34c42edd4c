// Peers, leases and sessions of a coordinator.

#include "shardstep/server/coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr int kMaxRegions = 1'000'000;

}  // namespace

Coordinator::Coordinator(std::string name, const CoordinatorEnvironment& environment,
                         const v1::CatalogEntry* found)
    : name_(std::move(name)),
      env_(environment),
      // Numbers of this start are above those of all earlier ones.
      last_lineage_(environment.start << 16),
      last_staging_(environment.start << 16),
      links_(environment.servers),
      sessions_(environment.clock, environment.lease, environment.start << 24),
      pipeline_(
          environment.servers, environment.start,
          {[this](int server, v1::PeerMessage message) { SendTo(server, std::move(message)); },
           [this](const v1::Prepare& request, const std::vector<v1::Prepared>& answers) {
             return Decide(
                 request, answers,
                 layout_ == nullptr ? v1::OptimizerDefinition() : layout_->description.definition(),
                 Facts());
           },
           [this](int server, const absl::Status&) { Lose(server, pipeline_.committed()); }}),
      snapshots_(environment.clock, environment.lease, environment.start << 24) {
  if (found == nullptr) return;
  state_ = State::kLost;
  lost_by_ = 0;
  lost_version_ = found->version();
  lineage_ = found->lineage();
}

void Coordinator::Run(std::function<void()> task) {
  serializer_.Run([self = shared_from_this(), task = std::move(task)] {
    self->idle_ = false;  // until Tick, a task like others, finds that it is so again
    task();
  });
}

OptimizerFacts Coordinator::Facts() const {
  return {name_, state_ == State::kLost ? lost_version_ : pipeline_.committed(), lineage_,
          env_.incarnation, layout_ == nullptr ? std::string() : layout_->plan.plan_id};
}

absl::Status Coordinator::CheckLive(const v1::CallHeader& header) const {
  if (state_ == State::kLost) return ShardsLost(Facts(), lost_by_);
  if (state_ != State::kLive) return NoSuchOptimizer(name_, {});
  return CheckBeliefs(header, Facts());
}

absl::StatusOr<Session*> Coordinator::FindSession(const v1::CallHeader& header) {
  Session* session = sessions_.Find(header.session());
  if (session == nullptr) {
    return Fenced(Facts(), header.session(),
                  "was replaced by a newer session of its trainer rank, or closed");
  }
  sessions_.Renew(session);
  return session;
}

// ---- peers

void Coordinator::ConnectPeer(int server, Send send) {
  Run([this, server, send = std::move(send)] {
    Link& link = links_[server];
    link.send = send;
    link.welcomed = false;
    v1::PeerMessage message;
    v1::PeerHello* hello = message.mutable_hello();
    hello->set_optimizer(name_);
    hello->set_coordinator_incarnation(env_.start);
    hello->set_received(link.inbox.last());
    hello->set_server_rank(server);
    link.send(message);
  });
}

void Coordinator::DisconnectPeer(int server) {
  Run([this, server] {
    links_[server].send = nullptr;
    links_[server].welcomed = false;
  });
}

void Coordinator::SendTo(int server, v1::PeerMessage message) {
  Link& link = links_[server];
  message.set_received(link.inbox.last());
  const v1::PeerMessage& kept = link.outbox.Add(std::move(message));
  if (link.welcomed && link.send) link.send(kept);
}

void Coordinator::Broadcast(const v1::PeerMessage& message) {
  for (int server = 0; server < env_.servers; ++server) SendTo(server, message);
}

void Coordinator::OnPeerReply(int server, v1::PeerReply reply) {
  Run([this, server, reply = std::move(reply)] {
    if (reply.has_welcome()) return OnWelcome(server, reply.welcome());
    Link& link = links_[server];
    link.outbox.Received(reply.received());
    if (!link.inbox.Accept(reply.number())) return;
    switch (reply.body_case()) {
      case v1::PeerReply::kSessionsKnown:
        return OnSessionsKnown(server, reply.sessions_known());
      case v1::PeerReply::kStagingState:
        return OnStagingState(server, reply.staging_state());
      case v1::PeerReply::kPrepared:
        pipeline_.OnPrepared(server, reply.prepared());
        return PumpAlone();
      case v1::PeerReply::kApplied:
        pipeline_.OnApplied(server, reply.applied());
        ServeSnapshotWaiters();
        return PumpAlone();
      case v1::PeerReply::kHoldTaken:
        return OnHoldTaken(server, reply.hold_taken());
      case v1::PeerReply::kWelcome:
      case v1::PeerReply::BODY_NOT_SET:
        return;
    }
  });
}

void Coordinator::OnWelcome(int server, const v1::PeerWelcome& welcome) {
  Link& link = links_[server];
  const bool restarted = link.incarnation != 0 && link.incarnation != welcome.incarnation();
  const bool first = link.incarnation == 0;
  link.incarnation = welcome.incarnation();
  if (restarted) {
    // Its memory is new, and so is the conversation with it.
    link.inbox = Inbox();
    link.outbox = Outbox<v1::PeerMessage>();
    if (state_ == State::kLive) Lose(server, pipeline_.committed());
    if (creation_ != nullptr) {
      DropCreation(absl::UnavailableError(
          absl::StrCat("server ", server, " restarted while \"", name_, "\" was created")));
    }
    // Changes that were on their way to it (a delete) are to be proposed again.
    pipeline_.FailAll(absl::UnavailableError(absl::StrCat("server ", server, " restarted")));
  }
  if ((first || restarted) && welcome.shards_lost() && state_ == State::kAbsent) {
    lost_version_ = welcome.noted_version();
    Lose(server, welcome.noted_version());
  }
  link.outbox.Received(welcome.received());
  link.welcomed = true;
  for (const v1::PeerMessage& kept : link.outbox.kept()) link.send(kept);
  if (restarted) {
    std::vector<const Session*> all;
    for (const auto& [rank, session] : sessions_.live()) all.push_back(&session);
    if (!all.empty()) Announce(all);
  }
  AnswerOpenSessions();
  PumpAlone();
}

void Coordinator::Lose(int server, uint64_t version) {
  state_ = State::kLost;
  lost_by_ = server;
  lost_version_ = version;
  const absl::Status lost = ShardsLost(Facts(), server);
  pipeline_.FailAll(lost);
  FailWaiting(lost);
  snapshots_.Clear();
  FailSnapshotWaiters(lost);
  layout_ = nullptr;
}

// ---- leases

void Coordinator::Tick() {
  Run([this] {
    const absl::Time now = env_.clock->Now();
    for (const auto& [key, call] : open_) {
      Session* session = sessions_.Find(call->session);
      if (session != nullptr && call->reply && !call->caller.gone()) sessions_.Renew(session);
    }
    sessions_.Tick();
    Release(snapshots_.Expire());
    if (creation_ != nullptr && !creation_->preparing) {
      for (const uint64_t number : creation_->handed) {
        Session* session = sessions_.Find(number);
        if (session != nullptr && !sessions_.Lapsed(*session)) continue;
        DropCreation(absl::OkStatus());
        break;
      }
    }
    PumpSteps();
    AnswerWaitingSteps(now);
    AnswerProposers(now);
    AnswerOpenSessions();
    ServeSnapshotWaiters();
    const bool sessions =
        std::any_of(sessions_.live().begin(), sessions_.live().end(),
                    [this](const auto& entry) { return !sessions_.Lapsed(entry.second); });
    idle_ = state_ == State::kAbsent && !sessions && pipeline_.empty() && alone_.empty();
  });
}

void Coordinator::Drain() {
  Run([this] {
    draining_ = true;
    FailAllCalls(absl::UnavailableError("the server is shutting down"));
  });
}

Coordinator::~Coordinator() {
  const absl::Status ended = absl::UnavailableError("the coordinator ended; repeat the call");
  FailAllCalls(ended);
  for (const auto& [key, call] : open_) {
    if (call->reply) call->reply(ended);
  }
}

void Coordinator::FailAllCalls(const absl::Status& status) {
  // Steps that are prepared run to their end; their callers hear of it.
  FailWaiting(status);
  FailSnapshotWaiters(status);
  for (OpeningSession& opening : std::exchange(opening_, {})) opening.reply(status);
  if (creation_ == nullptr) return;
  for (Proposer& proposer : std::exchange(creation_->proposers, {})) proposer.reply(status);
}

// ---- sessions

void Coordinator::Announce(const std::vector<const Session*>& sessions) {
  v1::PeerMessage message;
  for (const Session* session : sessions) {
    v1::AnnounceSessions::Session* announced = message.mutable_sessions()->add_sessions();
    announced->set_trainer_rank(session->trainer_rank);
    announced->set_session(session->number);
    announced->set_closed(session->closed);
    for (const v1::DeclaredRegion& region : session->regions) *announced->add_regions() = region;
  }
  Broadcast(message);
}

void Coordinator::OpenSession(v1::OpenSessionRequest request, Caller caller,
                              Reply<v1::OpenSessionReply> reply) {
  Run([this, request = std::move(request), caller = std::move(caller), reply = std::move(reply)] {
    if (draining_) return reply(absl::UnavailableError("the server is shutting down"));
    if (state_ == State::kLost) return reply(ShardsLost(Facts(), lost_by_));
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
    uint64_t replaced = 0;
    auto opened = sessions_.Open(request.trainer_rank(), request.instance(),
                                 {request.regions().begin(), request.regions().end()}, &replaced);
    if (!opened.ok()) return reply(opened.status());
    Session* session = *opened;
    OpeningSession opening{session->number, {}, caller, reply};
    if (!session->announced) {
      if (replaced != 0) {
        EndSession(replaced, Fenced(Facts(), replaced, "was replaced by a newer session"));
      }
      Announce({session});
      session->announced = true;
      for (int server = 0; server < env_.servers; ++server) opening.unaware.insert(server);
    } else {
      // A repeat while the first is under way waits for the same servers.
      for (const OpeningSession& other : opening_) {
        if (other.session == session->number) opening.unaware = other.unaware;
      }
    }
    opening_.push_back(std::move(opening));
    AnswerOpenSessions();
  });
}

void Coordinator::OnSessionsKnown(int server, const v1::SessionsKnown& known) {
  for (OpeningSession& opening : opening_) {
    if (std::find(known.sessions().begin(), known.sessions().end(), opening.session) !=
        known.sessions().end()) {
      opening.unaware.erase(server);
    }
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
    const bool unsettled = std::any_of(open_.begin(), open_.end(), [&](const auto& entry) {
      return entry.second->trainer_rank == session->trainer_rank &&
             entry.second->session != session->number;
    });
    if (opening.unaware.empty() && !unsettled) {
      const LastCommit& last = sessions_.last_commit(session->trainer_rank);
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
              : absl::StrCat("waiting for server ", absl::StrJoin(opening.unaware, ", server "),
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
    sessions_.Forget(*session, request.header().first_live_call());
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
  if (creation_ != nullptr && !creation_->preparing && creation_->handed.count(number) > 0) {
    DropCreation(absl::OkStatus());
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
    entry->set_version(sessions_.last_commit(rank).version);
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
