#include "shardstep/server/node.h"

#include <atomic>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/optimizer_definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr absl::Duration kNoteInterval = absl::Seconds(10);

// Calls `done` when it has been called `count` times, or at once for 0.
std::function<void()> After(size_t count, std::function<void()> done) {
  if (count == 0) {
    done();
    return [] {};
  }
  auto left = std::make_shared<std::atomic<size_t>>(count);
  return [left, done = std::move(done)] {
    if (left->fetch_sub(1) == 1) done();
  };
}

template <typename T>
std::vector<std::string> KeysOf(const std::map<std::string, T>& map) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys;
}

}  // namespace

Node::Node(const NodeOptions& options, const NodeEnvironment& environment)
    : options_(options),
      env_(environment),
      shard_memory_(options.shard_memory),
      push_memory_(options.push_memory),
      snapshot_memory_(options.snapshot_memory),
      last_note_(env_.clock->Now()) {
  std::set<std::string> names(env_.catalog->logs().begin(), env_.catalog->logs().end());
  if (options.durability != Durability::kWal) names.clear();
  for (const auto& [name, entry] : env_.catalog->found()) names.insert(name);
  MutexLock lock(&mutex_);
  for (const std::string& name : names) {
    const auto found = env_.catalog->found().find(name);
    const v1::CatalogEntry* const entry =
        found == env_.catalog->found().end() ? nullptr : &found->second;
    MakeHost(name, entry);
    if (options.server_rank == kCoordinatorRank) MakeCoordinator(name, entry);
  }
}

std::shared_ptr<ShardHost> Node::MakeHost(const std::string& optimizer,
                                          const v1::CatalogEntry* found) {
  ShardHostEnvironment environment;
  environment.server_rank = options_.server_rank;
  environment.incarnation = incarnation();
  environment.numeric_fingerprint = options_.numeric_fingerprint;
  environment.durability = options_.durability;
  environment.log_bytes = options_.log_bytes;
  environment.executor = env_.executor;
  environment.disk = env_.disk;
  environment.log = env_.log;
  environment.files = env_.files;
  environment.catalog = env_.catalog;
  environment.checkpoints = env_.checkpoints;
  environment.fatal = env_.fatal;
  environment.shard_memory = &shard_memory_;
  environment.push_memory = &push_memory_;
  environment.snapshot_memory = &snapshot_memory_;
  const auto fences = env_.catalog->fences().find(optimizer);
  auto host = std::make_shared<ShardHost>(
      optimizer, environment, found,
      fences == env_.catalog->fences().end() ? nullptr : &fences->second);
  host->Recover();
  hosts_[optimizer] = host;
  return host;
}

std::shared_ptr<Coordinator> Node::MakeCoordinator(const std::string& optimizer,
                                                   const v1::CatalogEntry* found) {
  CoordinatorEnvironment environment;
  environment.servers = options_.servers;
  environment.incarnation = incarnation();
  environment.start = (incarnation() << 16) + ++coordinators_made_;
  environment.clock = env_.clock;
  environment.lease = options_.lease;
  environment.numeric_fingerprint = options_.numeric_fingerprint;
  environment.durability = options_.durability;
  environment.checkpoint_interval = options_.checkpoint_interval;
  environment.fatal = env_.fatal;
  auto coordinator = std::make_shared<Coordinator>(optimizer, environment, found);
  coordinators_[optimizer] = coordinator;
  return coordinator;
}

absl::Status Node::CoordinatesNothing() const {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("server ", options_.server_rank, " coordinates nothing, server ",
                                kCoordinatorRank, " does"),
                   v1::NOT_COORDINATOR);
}

absl::StatusOr<std::shared_ptr<Coordinator>> Node::FindCoordinator(const std::string& optimizer,
                                                                   bool create) {
  if (options_.server_rank != kCoordinatorRank) return CoordinatesNothing();
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(optimizer));
  std::shared_ptr<Coordinator> made;
  {
    MutexLock lock(&mutex_);
    const auto found = coordinators_.find(optimizer);
    if (found != coordinators_.end()) return found->second;
    if (!create) return NoSuchOptimizer(optimizer, KeysOf(coordinators_));
    if (coordinators_.size() >= kMaxOptimizers) {
      return absl::ResourceExhaustedError(absl::StrCat("optimizer \"", optimizer,
                                                       "\": the fleet has ", coordinators_.size(),
                                                       " optimizers, the most it takes"));
    }
    made = MakeCoordinator(optimizer, /*found=*/nullptr);
  }
  for (int server = 0; server < options_.servers; ++server) env_.open_peer(server, optimizer, made);
  return made;
}

absl::StatusOr<std::shared_ptr<ShardHost>> Node::FindHost(const std::string& optimizer,
                                                          bool create) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(optimizer));
  MutexLock lock(&mutex_);
  const auto found = hosts_.find(optimizer);
  if (found != hosts_.end()) return found->second;
  if (!create) return NoSuchOptimizer(optimizer, KeysOf(hosts_));
  return MakeHost(optimizer, /*found=*/nullptr);
}

std::vector<std::shared_ptr<Coordinator>> Node::Coordinators() {
  MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<Coordinator>> all;
  for (const auto& [name, coordinator] : coordinators_) all.push_back(coordinator);
  return all;
}

void Node::ConnectPeers() {
  std::map<std::string, std::shared_ptr<Coordinator>> all;
  {
    MutexLock lock(&mutex_);
    all = coordinators_;
  }
  for (const auto& [name, coordinator] : all) {
    for (int server = 0; server < options_.servers; ++server)
      env_.open_peer(server, name, coordinator);
  }
}

void Node::ListOptimizers(Reply<v1::ListOptimizersReply> reply) {
  if (options_.server_rank != kCoordinatorRank) return reply(CoordinatesNothing());
  const std::vector<std::shared_ptr<Coordinator>> all = Coordinators();
  // Slots are filled independently, and read when all are.
  auto slots =
      std::make_shared<std::vector<absl::StatusOr<v1::ListOptimizersReply::Optimizer>>>(all.size());
  const std::function<void()> filled = After(all.size(), [slots, reply = std::move(reply)] {
    v1::ListOptimizersReply list;
    for (const auto& slot : *slots) {
      if (slot.ok()) *list.add_optimizers() = *slot;
    }
    reply(list);
  });
  for (size_t i = 0; i < all.size(); ++i) {
    all[i]->Summarize([slots, filled, i](auto summary) {
      (*slots)[i] = std::move(summary);
      filled();
    });
  }
}

void Node::ListCheckpoints(const v1::ListCheckpointsRequest& request,
                           Reply<v1::ListCheckpointsReply> reply) {
  env_.disk->ForEach(
      1,
      [this, optimizer = request.header().optimizer(), reply = std::move(reply)](size_t) {
        reply(env_.checkpoints->List(optimizer));
      },
      [] {});
}

void Node::VerifyCheckpoint(const v1::VerifyCheckpointRequest& request,
                            Reply<v1::VerifyCheckpointReply> reply) {
  env_.disk->ForEach(
      1,
      [this, request, reply = std::move(reply)](size_t) {
        reply(env_.checkpoints->Verify(request));
      },
      [] {});
}

void Node::Tick() {
  for (const auto& coordinator : Coordinators()) coordinator->Tick();
  std::vector<std::shared_ptr<Coordinator>> idle;  // die outside the lock
  {
    MutexLock lock(&mutex_);
    for (auto entry = coordinators_.begin(); entry != coordinators_.end();) {
      // Somebody else who holds it may be about to call it.
      if (entry->second.use_count() == 1 && entry->second->idle()) {
        idle.push_back(std::move(entry->second));
        entry = coordinators_.erase(entry);
      } else {
        ++entry;
      }
    }
    if (env_.clock->Now() - last_note_ < kNoteInterval) return;
    last_note_ = env_.clock->Now();
  }
  NoteVersions([] {});
}

void Node::Drain(std::function<void()> done) {
  for (const auto& coordinator : Coordinators()) coordinator->Drain();
  NoteVersions(std::move(done));
}

void Node::NoteVersions(std::function<void()> done) {
  std::map<std::string, std::shared_ptr<ShardHost>> all;
  {
    MutexLock lock(&mutex_);
    all = hosts_;
  }
  const std::function<void()> noted = After(all.size(), std::move(done));
  for (const auto& [name, host] : all) {
    host->NoteVersion([noted](const absl::Status&) { noted(); });
  }
}

}  // namespace shardstep
