// Create, attach, delete, snapshots, and servers that lose their memory: three servers in one
// thread, no sockets.

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

class LifecycleTest : public ::testing::Test {
 protected:
  static OptimizerDefinition Definition(Mode mode = Synchronous(1)) {
    return TestFleet::Definition({{"a", 7}, {"b", 2}}, {{"lr", 1.0}}, mode, 3);
  }
  void Start() {
    session_ = fleet_.OpenSession(0, "t0");
    ASSERT_OK(fleet_.Create(Definition(), session_));
  }
  absl::Status StepOnce(uint64_t sequence, v1::SnapshotKind kind = v1::NO_SNAPSHOT,
                        v1::StepReply* reply = nullptr) {
    absl::Status pushed = fleet_.Push(session_, sequence, {{"a", 1}});
    if (!pushed.ok()) return pushed;
    v1::StepRequest want;
    want.set_want_snapshot(kind);
    const auto step = fleet_.Step(session_, sequence, sequence, sequence, want);
    if (step->status().ok() && reply != nullptr) *reply = **step;
    return step->status();
  }
  v1::ListOptimizersReply List() {
    Answer<v1::ListOptimizersReply> list;
    fleet_.node(0).ListOptimizers(list.reply());
    return *list;
  }

  TestFleet fleet_{3, ::testing::TempDir() + "/" +
                          ::testing::UnitTest::GetInstance()->current_test_info()->name()};
  uint64_t session_ = 0;
};

TEST_F(LifecycleTest, EqualDefinitionAttachesAndAnotherIsRefusedByName) {
  Start();
  ASSERT_OK(StepOnce(1));
  const uint64_t other = fleet_.OpenSession(1, "t1");
  EXPECT_EQ(other, 0u);  // a synchronous optimizer of one trainer has no trainer rank 1
  ASSERT_OK(fleet_.Create(Definition(), session_));
  OptimizerDefinition differs = Definition();
  differs.parameters[1].sizes = {3};
  const absl::Status refused = fleet_.Create(differs, session_);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("\"b\"")));
  EXPECT_EQ(ReasonOf(refused), v1::DEFINITION_DIFFERS);
  const auto values = fleet_.ReadNow();
  ASSERT_OK(values.status());
  EXPECT_THAT(values->at("a"), Each(-1));
}

TEST_F(LifecycleTest, OnlyTheCoordinatingServerLists) {
  Start();
  EXPECT_EQ(List().optimizers_size(), 1);
  Answer<v1::ListOptimizersReply> list;
  fleet_.node(1).ListOptimizers(list.reply());
  EXPECT_EQ(ReasonOf(list.status()), v1::NOT_COORDINATOR) << list.status();
}

TEST_F(LifecycleTest, InvisibleUntilAllServersHoldTheValues) {
  session_ = fleet_.OpenSession(0, "t0");
  fleet_.Cut(2);
  v1::ProposeRequest request;
  request.mutable_header()->set_session(session_);
  *request.mutable_create() =
      PagedMessage(DefinitionToProto(Definition()).SerializeAsString()).page(0).value();
  Answer<v1::ProposeReply> proposed;
  fleet_.coordinator().Propose(request, {fleet_.clock().Now() + absl::Seconds(3)},
                               proposed.reply());
  EXPECT_FALSE(proposed.there());  // server 2 has not opened the staging
  EXPECT_EQ(List().optimizers(0).state(), "creating");
  EXPECT_EQ(fleet_.ReadNow().status().code(), absl::StatusCode::kNotFound);
  fleet_.Advance(absl::Seconds(4));
  EXPECT_TRUE(proposed->has_pending());
  fleet_.Heal(2);
  ASSERT_OK(fleet_.Create(Definition(), session_));
  EXPECT_EQ(List().optimizers(0).state(), "live");
}

TEST_F(LifecycleTest, StagingOfADeadSessionGoesToTheNextProposer) {
  session_ = fleet_.OpenSession(0, "t0");
  v1::ProposeRequest request;
  request.mutable_header()->set_session(session_);
  *request.mutable_create() =
      PagedMessage(DefinitionToProto(Definition()).SerializeAsString()).page(0).value();
  Answer<v1::ProposeReply> proposed;
  fleet_.coordinator().Propose(request, {fleet_.clock().Now() + absl::Seconds(3)},
                               proposed.reply());
  ASSERT_TRUE(proposed->has_staging());
  fleet_.Advance(absl::Seconds(31));  // it never writes
  const uint64_t next = fleet_.OpenSession(0, "t0 again");
  ASSERT_OK(fleet_.Create(Definition(), next));
}

TEST_F(LifecycleTest, DeletedOptimizerIsGoneAndItsNameIsFree) {
  Start();
  ASSERT_OK(StepOnce(1));
  ASSERT_OK(fleet_.Delete());
  EXPECT_EQ(List().optimizers_size(), 0);
  EXPECT_EQ(fleet_.Push(session_, 2, {{"a", 1}}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(fleet_.Delete().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(fleet_.node(1).shard_memory().used(), 0);
  ASSERT_OK(fleet_.Create(Definition(), session_));
  const auto values = fleet_.ReadNow();
  ASSERT_OK(values.status());
  EXPECT_THAT(values->at("a"), Each(0));
}

TEST_F(LifecycleTest, ADeletionThatComesLateDeletesNothingThatWasCreatedSince) {
  Start();
  const uint64_t lineage = List().optimizers(0).lineage();
  ASSERT_OK(fleet_.Delete(lineage));
  ASSERT_OK(fleet_.Create(Definition(), session_));
  const absl::Status late = fleet_.Delete(lineage);
  EXPECT_EQ(ReasonOf(late), v1::ROLLED_BACK);
  EXPECT_EQ(ErrorDetailOf(late)->lineage(), List().optimizers(0).lineage());
  ASSERT_OK(fleet_.ReadNow().status());
  ASSERT_OK(fleet_.Delete(List().optimizers(0).lineage()));
}

TEST_F(LifecycleTest, ASessionIsNotOpenBeforeAllServersKnowItHoweverOftenItIsAsked) {
  v1::OpenSessionRequest request;
  request.mutable_header()->set_optimizer("m");
  request.set_instance("t0");
  fleet_.Cut(2);
  for (int attempt = 0; attempt < 3; ++attempt) {
    Answer<v1::OpenSessionReply> answer;
    fleet_.coordinator().OpenSession(request, {fleet_.clock().Now() + absl::Seconds(1)},
                                     answer.reply());
    fleet_.Advance(absl::Seconds(2));
    EXPECT_THAT(answer.status(),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("waiting for server 2")));
  }
  fleet_.Heal(2);
  EXPECT_NE(fleet_.OpenSession(0, "t0"), 0u);
}

TEST_F(LifecycleTest, NothingIsCalledDeletedBeforeAllServersSayThatTheyHaveNothing) {
  fleet_.Cut(2);
  fleet_.Restart(0);
  EXPECT_THAT(fleet_.Delete(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("waiting for server 2")));
  fleet_.Heal(2);
  EXPECT_EQ(fleet_.Delete().code(), absl::StatusCode::kNotFound);
}

TEST_F(LifecycleTest, ServerThatLostItsMemorySaysSoUntilTheOptimizerIsDeleted) {
  Start();
  for (uint64_t i = 1; i <= 5; ++i) ASSERT_OK(StepOnce(i));
  fleet_.Restart(1);
  const absl::Status lost = fleet_.Step(session_, 6, 6, 5)->status();
  EXPECT_THAT(lost, StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("optimizer \"m\": server 1 restarted and lost its shards at "
                                       "version 5")));
  EXPECT_EQ(ReasonOf(lost), v1::SHARDS_LOST);
  EXPECT_EQ(ReasonOf(fleet_.Push(session_, 6, {{"a", 1}}, 1, 0, 1)), v1::SHARDS_LOST);
  EXPECT_EQ(ReasonOf(fleet_.ReadNow().status()), v1::SHARDS_LOST);
  EXPECT_EQ(ReasonOf(fleet_.Create(Definition(), session_)), v1::SHARDS_LOST);
  EXPECT_EQ(List().optimizers(0).state(), "shards lost");
  ASSERT_OK(fleet_.Delete());
  session_ = fleet_.OpenSession(0, "t0");
  ASSERT_OK(fleet_.Create(Definition(), session_));
  // The same session: its numbers go on.
  ASSERT_OK(StepOnce(6));
}

TEST_F(LifecycleTest, CoordinatorThatLostItsMemorySaysSo) {
  Start();
  ASSERT_OK(StepOnce(1));
  bool noted = false;
  for (int server : {0, 1, 2}) fleet_.node(server).NoteVersions([&] { noted = true; });
  EXPECT_TRUE(noted);
  fleet_.Restart(0);
  EXPECT_EQ(fleet_.OpenSession(0, "t0"), 0u);
  EXPECT_EQ(ReasonOf(fleet_.ReadNow().status()), v1::SHARDS_LOST);
  EXPECT_THAT(fleet_.ReadNow().status().message(), HasSubstr("server 0"));
  EXPECT_THAT(fleet_.ReadNow().status().message(), HasSubstr("version 1"));
  // The other servers' shards are of no use any more.
  EXPECT_EQ(ReasonOf(fleet_.Push(session_, 2, {{"a", 1}}, 1, 0, 2)), v1::SHARDS_LOST);
  ASSERT_OK(fleet_.Delete());
  session_ = fleet_.OpenSession(0, "t0");
  ASSERT_OK(fleet_.Create(Definition(), session_));
  ASSERT_OK(StepOnce(1));
}

TEST_F(LifecycleTest, SnapshotKeepsItsVersionWhileStepsGoOn) {
  Start();
  v1::StepReply first;
  ASSERT_OK(StepOnce(1, v1::PARAMETERS, &first));
  ASSERT_TRUE(first.committed().has_snapshot());
  for (uint64_t i = 2; i <= 5; ++i) ASSERT_OK(StepOnce(i));
  uint64_t version = 0;
  const auto held = fleet_.Read(first.committed().snapshot().snapshot(), &version);
  ASSERT_OK(held.status());
  EXPECT_EQ(version, 1u);
  EXPECT_THAT(held->at("a"), Each(-1));
  const auto now = fleet_.ReadNow(&version);
  ASSERT_OK(now.status());
  EXPECT_EQ(version, 5u);
  EXPECT_THAT(now->at("a"), Each(-5));
  // Its lease ends; then it is gone, and so is its memory.
  EXPECT_GT(fleet_.node(0).snapshot_memory().used(), 0);
  fleet_.Advance(absl::Seconds(31));
  EXPECT_EQ(ReasonOf(fleet_.Read(first.committed().snapshot().snapshot()).status()),
            v1::SNAPSHOT_GONE);
  EXPECT_EQ(fleet_.node(0).snapshot_memory().used(), 0);
}

TEST_F(LifecycleTest, SnapshotForALaterVersionWaitsForIt) {
  Start();
  v1::OpenSnapshotRequest request;
  request.set_kind(v1::PARAMETERS);
  request.set_at_least_version(1);
  Answer<v1::OpenSnapshotReply> early;
  fleet_.coordinator().OpenSnapshot(request, {fleet_.clock().Now() + absl::Seconds(2)},
                                    early.reply());
  EXPECT_FALSE(early.there());
  fleet_.Advance(absl::Seconds(3));
  EXPECT_FALSE(early->has_snapshot());
  Answer<v1::OpenSnapshotReply> waiting;
  fleet_.coordinator().OpenSnapshot(request, {fleet_.clock().Now() + absl::Seconds(20)},
                                    waiting.reply());
  ASSERT_OK(StepOnce(1));
  ASSERT_OK(waiting.status());
  EXPECT_EQ(waiting->snapshot().version(), 1u);
}

TEST_F(LifecycleTest, HoldsBeyondTheirMemoryAreRefusedAndStepsGoOn) {
  NodeOptions options = TestFleet::DefaultOptions();
  options.snapshot_memory =
      30;  // server 0 holds 3 elements of a and 1 of b: one version fits, two do not
  TestFleet fleet(3, ::testing::TempDir() + "/tight-holds", options);
  const uint64_t session = fleet.OpenSession(0, "t0");
  ASSERT_OK(fleet.Create(Definition(), session));
  v1::StepRequest want;
  want.set_want_snapshot(v1::PARAMETERS);
  const auto first = fleet.Step(session, 1, 1, 0, want);
  EXPECT_TRUE((*first)->committed().has_snapshot());
  const auto second = fleet.Step(session, 2, 1, 0, want);
  ASSERT_OK(second->status());
  EXPECT_EQ((*second)->committed().version(), 2u);
  EXPECT_FALSE((*second)->committed().has_snapshot());
  const absl::Status full = fleet.ReadNow().status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(RetryDelayOf(full), absl::ZeroDuration());
  v1::StepRequest close = want;
  close.add_close_snapshots((*first)->committed().snapshot().snapshot());
  EXPECT_TRUE((*fleet.Step(session, 3, 1, 0, close))->committed().has_snapshot());
}

TEST_F(LifecycleTest, PushesBeyondTheirMemoryAreRefused) {
  NodeOptions options = TestFleet::DefaultOptions();
  options.push_memory = 20;
  TestFleet fleet(3, ::testing::TempDir() + "/tight-pushes", options);
  const uint64_t session = fleet.OpenSession(0, "t0");
  ASSERT_OK(fleet.Create(Definition(), session));
  ASSERT_OK(fleet.Push(session, 1, {{"a", 1}}));
  EXPECT_EQ(fleet.Push(session, 2, {{"a", 1}}).code(), absl::StatusCode::kResourceExhausted);
  ASSERT_OK(fleet.Step(session, 1, 1, 1)->status());
  EXPECT_EQ(fleet.node(0).push_memory().used(), 0);
  ASSERT_OK(fleet.Push(session, 2, {{"a", 1}}));
}

TEST_F(LifecycleTest, PushMemoryIsKeptForTrainersThatHaveNotPushed) {
  NodeOptions options = TestFleet::DefaultOptions();
  options.push_memory = 40;  // server 0 takes 16 bytes of a push: two fit
  TestFleet fleet(3, ::testing::TempDir() + "/tight-barrier", options);
  const uint64_t first = fleet.OpenSession(0, "t0");
  const uint64_t second = fleet.OpenSession(1, "t1");
  ASSERT_OK(fleet.Create(Definition(Synchronous(2)), first));
  ASSERT_OK(fleet.Push(first, 1, {{"a", 1}, {"b", 1}}));
  EXPECT_THAT(fleet.Push(first, 2, {{"a", 1}, {"b", 1}}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("come first")));
  ASSERT_OK(fleet.Push(second, 1, {{"a", 1}, {"b", 1}}));
  const auto step = fleet.Step(first, 1, 1, 1);
  ASSERT_OK(fleet.Step(second, 1, 1, 1)->status());
  ASSERT_OK(step->status());
  // More trainers than one gradient of each has room for.
  TestFleet crowded(3, ::testing::TempDir() + "/tight-crowd", options);
  EXPECT_THAT(crowded.Create(Definition(Synchronous(3)), crowded.OpenSession(0, "t0")),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("--push-memory")));
}

TEST_F(LifecycleTest, NamesThatNobodyUsesAreForgotten) {
  EXPECT_NE(fleet_.OpenSession(0, "t0"), 0u);
  const uint64_t before = fleet_.OpenSession(0, "t1");
  // The sessions' leases, and as long again.
  fleet_.Advance(absl::Seconds(64));
  EXPECT_EQ(fleet_.node(0).FindCoordinator("m", /*create=*/false).status().code(),
            absl::StatusCode::kNotFound);
  // And may be used again; no session number comes twice.
  const uint64_t after = fleet_.OpenSession(0, "t0");
  EXPECT_GT(after, before);
  ASSERT_OK(fleet_.Create(Definition(), after));
  session_ = after;
  ASSERT_OK(StepOnce(1));
}

}  // namespace
}  // namespace shardstep
