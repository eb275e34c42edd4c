// What a fleet with durability "wal" finds again, on the state machines alone: servers die between
// any two calls and come back on their data directories. Crashes inside of a call are the
// simulation's.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;

class RecoveryTest : public ::testing::Test {
 protected:
  RecoveryTest() : fleet_(3, Directory(), Options()) {}

  static std::string Directory() {
    return absl::StrCat(std::getenv("TEST_TMPDIR"), "/",
                        ::testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  static NodeOptions Options() {
    NodeOptions options = TestFleet::DefaultOptions();
    options.durability = Durability::kWal;
    options.log_bytes = 1 << 14;
    return options;
  }

  void Create(Mode mode = Synchronous{1}, int trainers = 1) {
    for (int rank = 0; rank < trainers; ++rank) {
      sessions_.push_back(fleet_.OpenSession(rank, absl::StrCat("trainer ", rank)));
    }
    OptionMap options;
    options.Set("lr", 1.0);
    options.Set("momentum", 0.5);
    options_ = options;
    definition_ = TestFleet::Definition({{"a", 9}, {"b", 300}}, options, mode, 3);
    ASSERT_OK(fleet_.Create(definition_, sessions_[0]));
  }
  // Pushes `gradient` to all servers and steps.
  absl::StatusOr<v1::StepReply> Step(uint64_t call, float gradient, const std::string& state = {}) {
    SHARDSTEP_RETURN_IF_ERROR(fleet_.Push(sessions_[0], call, {{"a", gradient}, {"b", gradient}}));
    v1::StepRequest more;
    more.set_trainer_state(state);
    const auto answer = fleet_.Step(sessions_[0], call, call, call, more);
    SHARDSTEP_RETURN_IF_ERROR(answer->status());
    return **answer;
  }
  // What the parameters are after steps with these gradients: lr 1, momentum 0.5.
  static float After(const std::vector<float>& gradients) {
    float value = 0;
    float velocity = 0;
    for (size_t i = 0; i < gradients.size(); ++i) {
      velocity = i == 0 ? gradients[i] : 0.5f * velocity + gradients[i];
      value -= velocity;
    }
    return value;
  }
  void ExpectAll(float value, uint64_t version) {
    uint64_t read = 0;
    ASSERT_OK_AND_ASSIGN(const Values values, fleet_.ReadNow(&read));
    EXPECT_EQ(read, version);
    ASSERT_EQ(values.at("b").size(), 300u);
    EXPECT_THAT(values.at("a"), Each(value));
    EXPECT_THAT(values.at("b"), Each(value));
  }
  void RestartAll() {
    for (const int server : {2, 0, 1}) fleet_.Stop(server);
    for (const int server : {1, 0, 2}) fleet_.Start(server);
  }

  TestFleet fleet_;
  std::vector<uint64_t> sessions_;
  OptionMap options_;
  OptimizerDefinition definition_;
};

TEST_F(RecoveryTest, AServerComesBackWhereItWas) {
  Create();
  std::vector<float> gradients;
  for (uint64_t call = 1; call <= 9; ++call) {
    gradients.push_back(static_cast<float>(call));
    ASSERT_OK_AND_ASSIGN(const v1::StepReply reply, Step(call, gradients.back()));
    EXPECT_EQ(reply.committed().version(), call);
    EXPECT_EQ(reply.committed().durable_version(), call);
    fleet_.Restart(static_cast<int>(call % 3));
    ExpectAll(After(gradients), call);
  }
  ASSERT_OK(fleet_.fatal());
}

TEST_F(RecoveryTest, AllServersAtOnceComeBackWhereTheyWere) {
  Create();
  ASSERT_OK(Step(1, 2).status());
  RestartAll();
  ExpectAll(After({2}), 1);
  ASSERT_OK(Step(2, 4).status());
  RestartAll();
  RestartAll();
  ExpectAll(After({2, 4}), 2);
}

TEST_F(RecoveryTest, BasesReplaceTheLog) {
  Create();
  std::vector<float> gradients;
  for (uint64_t call = 1; call <= 100; ++call) {
    gradients.push_back(1.0f / static_cast<float>(1 << (call % 5)));
    ASSERT_OK(Step(call, gradients.back()).status());
  }
  int segments = 0;
  int bases = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(absl::StrCat(Directory(), "/server-1/wal/m"))) {
    const std::string name = file.path().filename();
    segments += name.rfind("log-", 0) == 0;
    bases += name.rfind("base-", 0) == 0;
  }
  EXPECT_EQ(bases, 1);
  EXPECT_LE(segments, 6);
  RestartAll();
  ExpectAll(After(gradients), 100);
}

TEST_F(RecoveryTest, AStepThatIsRepeatedAfterTheCoordinatorDiedCountsOnce) {
  Create();
  ASSERT_OK(Step(1, 3, "cursor 1").status());
  fleet_.Restart(0);
  v1::StepRequest more;
  more.set_trainer_state("cursor 1");
  const auto again = fleet_.Step(sessions_[0], 1, 1, 1, more);
  ASSERT_OK(again->status());
  EXPECT_EQ((*again)->committed().version(), 1u);
  EXPECT_FALSE((*again)->committed().has_snapshot());
  ExpectAll(-3, 1);
  // Another call under the same number is refused as before.
  more.set_trainer_state("cursor 2");
  EXPECT_EQ(ReasonOf(fleet_.Step(sessions_[0], 1, 1, 1, more)->status()), v1::SEQ_REUSE);
  v1::StepStatusRequest ask;
  ask.mutable_header()->set_session(sessions_[0]);
  ask.mutable_header()->set_sequence(1);
  Answer<v1::StepStatusReply> status;
  fleet_.coordinator().StepStatus(ask, status.reply());
  ASSERT_OK(status.status());
  EXPECT_EQ(status->state(), v1::StepStatusReply::COMMITTED);
  EXPECT_EQ(status->committed().version(), 1u);
}

TEST_F(RecoveryTest, SessionsAndTrainerStatesAreNotForgotten) {
  Create();
  ASSERT_OK(Step(1, 3, "cursor 1").status());
  RestartAll();
  // The session goes on, and the same instance is the same session.
  EXPECT_EQ(fleet_.OpenSession(0, "trainer 0"), sessions_[0]);
  ASSERT_OK(Step(2, 3, "cursor 2").status());
  RestartAll();
  v1::OpenSessionRequest request;
  request.mutable_header()->set_optimizer("m");
  request.set_instance("another");
  Answer<v1::OpenSessionReply> opened;
  fleet_.coordinator().OpenSession(request, {fleet_.clock().Now() + absl::Minutes(1)},
                                   opened.reply());
  ASSERT_OK(opened.status());
  EXPECT_GT(opened->session(), sessions_[0]);
  EXPECT_EQ(opened->last_call(), 2u);
  EXPECT_EQ(opened->last_version(), 2u);
  EXPECT_EQ(opened->trainer_state(), "cursor 2");
  // The one it replaced is fenced, also after another restart.
  RestartAll();
  EXPECT_EQ(ReasonOf(fleet_.Step(sessions_[0], 3, 3, 3)->status()), v1::FENCED);
}

TEST_F(RecoveryTest, AServerThatForgotPushesNamesThem) {
  Create();
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", 1}}));
  fleet_.Restart(1);
  const auto missing = fleet_.Step(sessions_[0], 1, 1, 1);
  ASSERT_EQ(ReasonOf(missing->status()), v1::MISSING);
  ASSERT_EQ(ErrorDetailOf(missing->status())->missing_size(), 1);
  EXPECT_EQ(ErrorDetailOf(missing->status())->missing(0).server_rank(), 1);
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", 1}}, 1, 0, /*only_server=*/1));
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1)->status());
  ExpectAll(-1, 1);
}

TEST_F(RecoveryTest, AStepWaitsForAServerThatIsAway) {
  Create();
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", 1}}));
  fleet_.Stop(2);
  const auto step = fleet_.Step(sessions_[0], 1, 1, 1);
  EXPECT_FALSE(step->there());
  fleet_.Start(2);
  // Its pushes went with its memory.
  EXPECT_EQ(ReasonOf(step->status()), v1::MISSING);
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", 1}}, 1, 0, /*only_server=*/2));
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1)->status());
  ExpectAll(-1, 1);
}

TEST_F(RecoveryTest, ACoordinatorThatDiesBeforeAllHavePreparedAborts) {
  Create();
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", 1}}));
  fleet_.Cut(2);
  const auto step = fleet_.Step(sessions_[0], 1, 1, 1);
  fleet_.Stop(0);
  fleet_.Heal(2);
  fleet_.Start(0);
  ExpectAll(0, 0);
  // The others still have the pushes: only the coordinator's server asks for them again.
  const auto again = fleet_.Step(sessions_[0], 1, 1, 1);
  ASSERT_EQ(ReasonOf(again->status()), v1::MISSING);
  EXPECT_EQ(ErrorDetailOf(again->status())->missing_size(), 1);
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", 1}}, 1, 0, /*only_server=*/0));
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1)->status());
  ExpectAll(-1, 1);
}

TEST_F(RecoveryTest, GroupsLoadsAndDeletesAreFoundAgain) {
  Create();
  ASSERT_OK(Step(1, 2).status());
  v1::AddParamGroupChange group;
  v1::Parameter* added = group.add_parameters();
  added->set_name("c");
  added->set_dtype(v1::FLOAT32);
  added->add_sizes(5);
  v1::ProposeRequest add;
  add.mutable_header()->set_session(sessions_[0]);
  *add.mutable_add_param_group() = PagedMessage(group.SerializeAsString()).page(0).value();
  ASSERT_OK(fleet_.Propose(add, {{{"c", ""}, 7}}).status());
  RestartAll();
  ASSERT_OK_AND_ASSIGN(Values values, fleet_.ReadNow());
  EXPECT_THAT(values.at("a"), Each(-2));
  EXPECT_THAT(values.at("c"), Each(7));
  // It stands already.
  ASSERT_OK_AND_ASSIGN(const v1::ProposeReply::Done done, fleet_.Propose(add, {}));
  EXPECT_EQ(done.version(), 2u);

  v1::LoadChange load;
  load.set_digest("digest");
  load.set_version(40);
  for (const std::string name : {"a", "b", "c"}) {
    v1::LoadChange::Tensors* tensors = load.add_tensors();
    tensors->set_parameter(name);
    tensors->set_dtype(v1::FLOAT32);
    tensors->add_sizes(name == "a" ? 9 : name == "b" ? 300 : 5);
    tensors->set_value(true);
  }
  v1::ProposeRequest request;
  request.mutable_header()->set_session(sessions_[0]);
  request.mutable_header()->set_lineage(done.lineage());
  *request.mutable_load() = PagedMessage(load.SerializeAsString()).page(0).value();
  ASSERT_OK_AND_ASSIGN(const v1::ProposeReply::Done loaded,
                       fleet_.Propose(request, {{{"a", ""}, 1}, {{"b", ""}, 1}, {{"c", ""}, 1}}));
  EXPECT_GT(loaded.lineage(), done.lineage());
  RestartAll();
  ExpectAll(1, 40);
  // The same load again is done, although nobody remembers it but the log.
  ASSERT_OK_AND_ASSIGN(const v1::ProposeReply::Done again, fleet_.Propose(request, {}));
  EXPECT_EQ(again.lineage(), loaded.lineage());
  // Whoever worked on the old history is told of the new one.
  v1::StepRequest more;
  more.mutable_header()->set_lineage(done.lineage());
  EXPECT_EQ(ReasonOf(fleet_.Step(sessions_[0], 2, 1, 0, more)->status()), v1::ROLLED_BACK);

  ASSERT_OK(fleet_.Delete());
  RestartAll();
  EXPECT_EQ(ReasonOf(fleet_.ReadNow().status()), v1::NO_OPTIMIZER);
  EXPECT_FALSE(std::filesystem::exists(absl::StrCat(Directory(), "/server-0/wal/m")));
  const uint64_t session = fleet_.OpenSession(0, "anew");
  ASSERT_OK(fleet_.Create(definition_, session));
  ExpectAll(0, 0);
}

TEST_F(RecoveryTest, AnOldCoordinatorIsNotFollowed) {
  Create();
  ASSERT_OK(Step(1, 2).status());
  v1::PeerHello old;
  old.set_optimizer("m");
  old.set_coordinator_incarnation(1);
  absl::Status refused;
  fleet_.host(1).Connect(
      old, [](const std::vector<v1::PeerReply>&) {},
      [&](absl::Status status) { refused = status; });
  EXPECT_EQ(ReasonOf(refused), v1::FENCED);
  // Nor after the server forgot all but its disk.
  fleet_.Stop(0);
  fleet_.Restart(1);
  refused = absl::OkStatus();
  fleet_.host(1).Connect(
      old, [](const std::vector<v1::PeerReply>&) {},
      [&](absl::Status status) { refused = status; });
  EXPECT_EQ(ReasonOf(refused), v1::FENCED);
}

TEST_F(RecoveryTest, WhoWasToldThatItRecoversFindsItRecovered) {
  v1::OpenSessionRequest request;
  request.mutable_header()->set_optimizer("m");
  request.set_instance("trainer 0");
  const Caller caller{fleet_.clock().Now() + absl::Minutes(1)};
  Answer<v1::OpenSessionReply> first;
  Answer<v1::OpenSessionReply> second;
  fleet_.Cut(2);
  fleet_.coordinator().OpenSession(request, caller, first.reply());
  EXPECT_THAT(first.status(), StatusIs(absl::StatusCode::kUnavailable));
  fleet_.Heal(2);
  // Longer than a client waits between two attempts.
  fleet_.Advance(absl::Seconds(3));
  fleet_.Cut(2);
  fleet_.coordinator().OpenSession(request, caller, second.reply());
  EXPECT_FALSE(second.there()) << second.status();
  fleet_.Heal(2);
  EXPECT_OK(second.status());
}

TEST_F(RecoveryTest, ALogOfAnotherMachineIsNotReplayed) {
  Create();
  ASSERT_OK(Step(1, 2).status());
  NodeOptions other = Options();
  other.numeric_fingerprint = 77;
  const std::string directory = Directory();
  for (const int server : {0, 1, 2}) fleet_.Stop(server);
  TestFleet elsewhere(3, directory, other);
  EXPECT_THAT(elsewhere.fatal(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          ::testing::HasSubstr("--numerics=portable")));
  EXPECT_THAT(elsewhere.ReadNow(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(RecoveryTest, AServerWhoseLogIsGoneIsToldApart) {
  Create();
  ASSERT_OK(Step(1, 2).status());
  fleet_.Stop(1);
  std::filesystem::remove_all(absl::StrCat(Directory(), "/server-1/wal/m"));
  fleet_.Start(1);
  EXPECT_EQ(ReasonOf(fleet_.ReadNow().status()), v1::SHARDS_LOST);
}

}  // namespace
}  // namespace shardstep
