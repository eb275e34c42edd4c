// What clients' streams ask of a shard host: pushes, writes into a staging, reads.

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"

namespace shardstep {

void ShardHost::BeginPush(v1::Begin begin, Reply<std::shared_ptr<Push>> reply) {
  serializer_.Run([self = shared_from_this(), begin = std::move(begin), reply = std::move(reply)] {
    absl::Status live = self->CheckLive(begin.header());
    live.Update(SHARDSTEP_FAILPOINT("host.push_begun"));
    if (!live.ok()) return reply(live);
    reply(self->pushes_.Begin(begin));
  });
}

void ShardHost::EndPush(std::shared_ptr<Push> push, v1::End end,
                        std::function<void(absl::Status)> done) {
  serializer_.Run([self = shared_from_this(), push = std::move(push), end = std::move(end),
                   done = std::move(done)] {
    absl::Status live = self->CheckLive({});
    live.Update(SHARDSTEP_FAILPOINT("host.push_arrived"));
    done(live.ok() ? self->pushes_.End(push, end) : live);
    SHARDSTEP_PASS("host.push_acknowledged");
  });
}

void ShardHost::BeginWrite(v1::WriteBegin begin, Reply<std::shared_ptr<StagedWrite>> reply) {
  serializer_.Run([self = shared_from_this(), begin = std::move(begin), reply = std::move(reply)] {
    if (!self->staging_.has_value() || self->staging_->id() != begin.staging()) {
      return reply(absl::AbortedError(absl::StrCat("optimizer \"", self->name_, "\": staging ",
                                                   begin.staging(), " is gone; propose again")));
    }
    if (begin.header().plan_id() != self->staging_->layout()->plan.plan_id) {
      return reply(OptimizerError(
          self->Facts(), absl::StatusCode::kFailedPrecondition, v1::PLAN_CHANGED,
          absl::StrCat("staging ", begin.staging(), ": plan ", begin.header().plan_id(),
                       ", expected ", self->staging_->layout()->plan.plan_id)));
    }
    if (self->staging_->HasWrite(begin.header().session())) return reply(nullptr);
    auto write = std::make_shared<StagedWrite>(self->staging_->layout(), self->env_.shard_memory);
    write->staging = begin.staging();
    write->session = begin.header().session();
    reply(std::move(write));
  });
}

void ShardHost::EndWrite(std::shared_ptr<StagedWrite> write, v1::End end,
                         Reply<v1::WriteStateReply> reply) {
  serializer_.Run([self = shared_from_this(), write = std::move(write), end = std::move(end),
                   reply = std::move(reply)] {
    absl::Status status = write->assembly->CheckEnd(end.frames(), end.digest());
    if (!status.ok()) return reply(status);
    if (!self->staging_.has_value() || self->staging_->id() != write->staging) {
      return reply(absl::AbortedError(absl::StrCat("optimizer \"", self->name_, "\": staging ",
                                                   write->staging, " is gone; propose again")));
    }
    status = SHARDSTEP_FAILPOINT("host.write_arrived");
    if (status.ok()) status = self->staging_->Add(write->session, write->assembly);
    if (!status.ok()) return reply(status);
    v1::WriteStateReply written;
    written.set_complete(self->staging_->complete());
    if (written.complete()) self->ReportStaging();
    reply(written);
  });
}

void ShardHost::OpenRead(v1::CallHeader header, uint64_t snapshot,
                         Reply<std::shared_ptr<const HeldVersion>> reply) {
  serializer_.Run(
      [self = shared_from_this(), header = std::move(header), snapshot, reply = std::move(reply)] {
        // A snapshot outlives later plans, so only the server's incarnation is judged.
        const absl::Status live = self->CheckLive({});
        if (!live.ok()) return reply(live);
        v1::CallHeader believed;
        believed.set_incarnation(header.incarnation());
        absl::Status status = CheckBeliefs(believed, self->Facts());
        if (!status.ok()) return reply(status);
        auto held = self->holds_.find(snapshot);
        if (held == self->holds_.end()) {
          return reply(
              OptimizerError(self->Facts(), absl::StatusCode::kAborted, v1::SNAPSHOT_GONE,
                             absl::StrCat("optimizer \"", self->name_, "\": snapshot ", snapshot,
                                          " is not held; it was closed, or its lease ended")));
        }
        reply(held->second);
      });
}

}  // namespace shardstep
