// Checkpoints and restore between coordinator and shard hosts: whole fleets in one thread, with
// real files.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

NodeOptions Automatic() {
  NodeOptions options = TestFleet::DefaultOptions();
  options.durability = Durability::kCheckpoint;
  options.checkpoint_interval = absl::Seconds(10);
  return options;
}

OptimizerDefinition Definition(int servers) {
  return TestFleet::Definition({{"a", 7}, {"b", 2}}, {{"lr", 1.0}, {"momentum", 0.5}},
                               Synchronous(1), servers);
}

class CheckpointsTest : public ::testing::Test {
 protected:
  static std::string Directory() {
    return ::testing::TempDir() + "/" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  void Start(TestFleet* fleet, int servers) {
    session_ = fleet->OpenSession(0, "t0");
    ASSERT_OK(fleet->Create(Definition(servers), session_));
  }
  absl::StatusOr<v1::StepReply> StepOnce(TestFleet* fleet, uint64_t sequence,
                                         const std::string& trainer_state = "") {
    absl::Status pushed = fleet->Push(session_, sequence, {{"a", 1.0f / sequence}, {"b", 2}});
    if (!pushed.ok()) return pushed;
    v1::StepRequest more;
    more.set_trainer_state(trainer_state);
    const auto step = fleet->Step(session_, sequence, sequence, sequence, more);
    if (!step->status().ok()) return step->status();
    return **step;
  }
  static std::vector<std::string> Ids(TestFleet* fleet) {
    v1::ListCheckpointsRequest request;
    request.mutable_header()->set_optimizer("m");
    Answer<v1::ListCheckpointsReply> list;
    fleet->node(0).ListCheckpoints(request, list.reply());
    std::vector<std::string> ids;
    for (const auto& checkpoint : list->checkpoints()) {
      ids.push_back(checkpoint.problem().empty() ? checkpoint.checkpoint_id()
                                                 : checkpoint.problem());
    }
    return ids;
  }

  uint64_t session_ = 0;
};

TEST_F(CheckpointsTest, RestoreOnAnotherNumberOfServersGoesOnToTheSameNumbers) {
  TestFleet undisturbed(3, Directory() + "/undisturbed");
  Start(&undisturbed, 3);
  for (uint64_t i = 1; i <= 6; ++i) ASSERT_OK(StepOnce(&undisturbed, i).status());
  const Values expected = undisturbed.ReadEverything().value();
  {
    TestFleet fleet(3, Directory());
    Start(&fleet, 3);
    for (uint64_t i = 1; i <= 4; ++i) {
      ASSERT_OK(StepOnce(&fleet, i, absl::StrCat("batch ", i)).status());
    }
    const auto done = fleet.Checkpoint("", "r1");
    ASSERT_OK(done.status());
    EXPECT_EQ(done->checkpoint_id(), "1-4");
    EXPECT_EQ(done->version(), 4);
    EXPECT_GT(done->bytes(), 9 * 2 * sizeof(float));
    const auto repeated = fleet.Checkpoint("", "r1");
    ASSERT_OK(repeated.status());
    EXPECT_EQ(repeated->checkpoint_id(), "1-4");
    EXPECT_THAT(Ids(&fleet), ElementsAre("1-4"));
    EXPECT_EQ(fleet.Checkpoint("", "another")->checkpoint_id(), "1-4-2");
  }
  const uint64_t before = session_;
  for (const int servers : {1, 2, 4}) {
    const std::string directory = absl::StrCat(Directory(), "/on-", servers);
    ASSERT_OK(PosixFileSystem()->CreateDirectories(directory));
    ASSERT_EQ(std::system(absl::StrCat("cp -r ", Directory(), "/checkpoints ", directory).c_str()),
              0);
    TestFleet fleet(servers, directory);
    const auto restored = fleet.Restore("1-4", "r2");
    ASSERT_OK(restored.status());
    EXPECT_EQ(restored->version(), 4);
    v1::Description description;
    ASSERT_OK(fleet.ReadEverything(&description).status());
    ASSERT_EQ(description.trainers_size(), 1);
    EXPECT_EQ(description.trainers(0).state(), "batch 4");
    session_ = fleet.OpenSession(0, "t0 again");
    EXPECT_GT(session_, before);
    for (uint64_t i = 1; i <= 2; ++i) {
      ASSERT_OK(fleet.Push(session_, i, {{"a", 1.0f / (i + 4)}, {"b", 2}}));
      ASSERT_OK(fleet.Step(session_, i, i, i)->status());
    }
    EXPECT_EQ(fleet.ReadEverything().value(), expected) << servers << " servers";
    // The next checkpoint is of another lineage.
    EXPECT_EQ(fleet.Checkpoint("", "r3")->checkpoint_id(), "2-6");
  }
}

TEST_F(CheckpointsTest, ACoordinatorMayGoWhileCheckpointsAreUnderWay) {
  TestFleet fleet(3, Directory());
  Start(&fleet, 3);
  ASSERT_OK(StepOnce(&fleet, 1).status());
  fleet.Cut(2);
  std::vector<Answer<v1::CheckpointReply>> answers(2);
  for (size_t i = 0; i < answers.size(); ++i) {
    v1::CheckpointRequest request;
    request.mutable_header()->set_request_id(absl::StrCat("r", i));
    fleet.coordinator().Checkpoint(request, {fleet.clock().Now() + absl::Minutes(1)},
                                   answers[i].reply());
    EXPECT_FALSE(answers[i].there());
  }
  fleet.Stop(0);
  for (const auto& answer : answers) {
    EXPECT_THAT(answer.status(), StatusIs(absl::StatusCode::kUnavailable));
  }
}

TEST_F(CheckpointsTest, AGroupThatWasAddedIsStillOneAfterARestore) {
  TestFleet fleet(2, Directory());
  Start(&fleet, 2);
  v1::AddParamGroupChange group;
  group.add_parameters()->set_name("c");
  group.mutable_parameters(0)->set_dtype(v1::FLOAT32);
  group.mutable_parameters(0)->add_sizes(4);
  v1::ProposeRequest add;
  add.mutable_header()->set_session(session_);
  *add.mutable_add_param_group() = PagedMessage(group.SerializeAsString()).page(0).value();
  ASSERT_OK(fleet.Propose(add, {{{"c", ""}, 8}}).status());
  ASSERT_OK(fleet.Checkpoint("with", "r1").status());
  ASSERT_OK(fleet.Restore("with", "r2").status());
  // Whoever attaches names the creation's parameters, and adds the group again.
  session_ = fleet.OpenSession(0, "t0 again");
  ASSERT_OK(fleet.Create(Definition(2), session_));
  add.mutable_header()->set_session(session_);
  const auto again = fleet.Propose(add, {});
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version(), 1);
  EXPECT_EQ(fleet.ReadNow()->at("c"), std::vector<float>(4, 8));
}

TEST_F(CheckpointsTest, AFleetThatLostItsMemoryNamesTheCheckpointAndIsBroughtBackByIt) {
  TestFleet fleet(3, Directory());
  Start(&fleet, 3);
  ASSERT_OK(StepOnce(&fleet, 1).status());
  ASSERT_OK(fleet.Checkpoint("first", "r1").status());
  ASSERT_OK(StepOnce(&fleet, 2).status());
  const Values at_1 = [&] {
    TestFleet other(3, Directory() + "/other");
    Start(&other, 3);
    EXPECT_OK(StepOnce(&other, 1).status());
    return other.ReadEverything().value();
  }();
  session_ = fleet.OpenSession(0, "t0");
  for (int server = 0; server < 3; ++server) fleet.Restart(server);
  const absl::Status lost = fleet.ReadNow().status();
  EXPECT_EQ(ReasonOf(lost), v1::SHARDS_LOST);
  EXPECT_THAT(lost.message(),
              HasSubstr("last checkpoint \"first\": shardctl restore m --id first"));
  ASSERT_OK(fleet.Restore("first", "r2").status());
  EXPECT_EQ(fleet.ReadEverything().value(), at_1);
}

TEST_F(CheckpointsTest, AutomaticOnesFollowTheVersionAndAreToldAsDurable) {
  TestFleet fleet(2, Directory(), Automatic());
  Start(&fleet, 2);  // acknowledged, so there is a checkpoint of version 0
  EXPECT_THAT(Ids(&fleet), ElementsAre("1-0"));
  EXPECT_EQ(StepOnce(&fleet, 1)->committed().durable_version(), 0);
  ASSERT_OK(StepOnce(&fleet, 2).status());
  fleet.Advance(absl::Seconds(12));
  EXPECT_EQ(StepOnce(&fleet, 3)->committed().durable_version(), 2);
  fleet.Advance(absl::Seconds(12));
  EXPECT_THAT(Ids(&fleet), ElementsAre("1-2", "1-3"));  // keep_last is 2
  // Nothing new, no checkpoint.
  fleet.Advance(absl::Minutes(1));
  EXPECT_THAT(Ids(&fleet), ElementsAre("1-2", "1-3"));
  // One that somebody asked for stays.
  ASSERT_OK(fleet.Checkpoint("mine", "r1").status());
  for (uint64_t i = 4; i < 7; ++i) {
    ASSERT_OK(StepOnce(&fleet, i).status());
    fleet.Advance(absl::Seconds(12));
  }
  EXPECT_THAT(Ids(&fleet), ElementsAre("mine", "1-5", "1-6"));
}

TEST_F(CheckpointsTest, ACheckpointIsOfOneVersionAlthoughTrainingGoesOn) {
  TestFleet fleet(3, Directory());
  Start(&fleet, 3);
  ASSERT_OK(StepOnce(&fleet, 1).status());
  // Server 2 does not hear of the checkpoint until later versions stand... on it too.
  fleet.Cut(2);
  v1::CheckpointRequest request;
  request.mutable_header()->set_request_id("r1");
  Answer<v1::CheckpointReply> answer;
  fleet.coordinator().Checkpoint(request, {fleet.clock().Now() + absl::Seconds(5)}, answer.reply());
  EXPECT_FALSE(answer.there());
  fleet.Advance(absl::Seconds(6));
  ASSERT_TRUE(answer.there());
  EXPECT_TRUE(answer->has_pending());
  fleet.Heal(2);
  ASSERT_OK(StepOnce(&fleet, 2).status());
  const auto done = fleet.Checkpoint("", "r1");
  ASSERT_OK(done.status());
  EXPECT_EQ(done->version(), 1);
  EXPECT_THAT(Ids(&fleet), SizeIs(1));
}

TEST_F(CheckpointsTest, RefusalsNameWhatIsWrong) {
  TestFleet fleet(2, Directory());
  Start(&fleet, 2);
  ASSERT_OK(fleet.Checkpoint("one", "r1").status());
  EXPECT_THAT(fleet.Checkpoint("one", "r2").status(),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("one")));
  EXPECT_THAT(fleet.Checkpoint("ONE", "r3").status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("one")));
  for (const char* id : {"..", "a/b", ".hidden"}) {
    EXPECT_THAT(fleet.Checkpoint(id, absl::StrCat("r", id)).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(id)));
  }
  EXPECT_THAT(fleet.Restore("onee", "r4").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("one")));
  // A name that would leave the root, where there is what looks like a checkpoint.
  ASSERT_EQ(std::system(
                absl::StrCat("cp -r ", Directory(), "/checkpoints/m/one ", Directory(), "/outside")
                    .c_str()),
            0);
  v1::VerifyCheckpointRequest verify;
  verify.mutable_header()->set_optimizer("..");
  verify.set_checkpoint_id("outside");
  Answer<v1::VerifyCheckpointReply> verified;
  fleet.node(0).VerifyCheckpoint(verify, verified.reply());
  EXPECT_THAT(verified.status(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("..")));
  ASSERT_OK(StepOnce(&fleet, 1).status());  // the fleet is as it was
  EXPECT_THAT(Ids(&fleet), ElementsAre("one"));
}

TEST_F(CheckpointsTest, ServersThatDoNotSeeTheSameRootRefuseAndNameBoth) {
  TestFleet fleet(2, Directory());
  fleet.SeparateRoot(1);
  fleet.Restart(1);
  Start(&fleet, 2);
  EXPECT_THAT(fleet.Checkpoint("one", "r1").status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("server 1"), HasSubstr("server 0"),
                             HasSubstr("/checkpoints-apart"))));
  EXPECT_THAT(Ids(&fleet), SizeIs(0));
  ASSERT_OK(StepOnce(&fleet, 1).status());
}

TEST_F(CheckpointsTest, ACreateThatNoCheckpointContainsIsNotAcknowledgedUntilOneDoes) {
  TestFleet fleet(2, Directory(), Automatic());
  fleet.SeparateRoot(1);
  fleet.Restart(1);
  session_ = fleet.OpenSession(0, "t0");
  EXPECT_THAT(fleet.Create(Definition(2), session_),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("not durable yet"), HasSubstr("server 1"))));
  // Whoever mends the root repeats the call; nothing was lost.
  ASSERT_EQ(std::system(absl::StrCat("ln -s ", Directory(), "/checkpoints ", Directory(),
                                     "/checkpoints-apart")
                            .c_str()),
            0);
  ASSERT_OK(fleet.Create(Definition(2), session_));
  EXPECT_THAT(Ids(&fleet), ElementsAre("1-0"));
}

TEST_F(CheckpointsTest, AServerThatRestartsEndsTheCheckpointAndLeavesNoRemains) {
  TestFleet fleet(2, Directory());
  Start(&fleet, 2);
  fleet.Cut(1);
  v1::CheckpointRequest request;
  request.mutable_header()->set_request_id("r1");
  Answer<v1::CheckpointReply> answer;
  fleet.coordinator().Checkpoint(request, {fleet.clock().Now() + absl::Minutes(1)}, answer.reply());
  fleet.Heal(1);
  fleet.Restart(1);
  ASSERT_TRUE(answer.there());
  ASSERT_OK(fleet.Delete());
  session_ = fleet.OpenSession(0, "new");
  ASSERT_OK(fleet.Create(Definition(2), session_));
  ASSERT_OK(fleet.Checkpoint("two", "r2").status());
  const auto entries = PosixFileSystem()->List(Directory() + "/checkpoints/m");
  ASSERT_OK(entries.status());
  for (const DirectoryEntry& entry : *entries) EXPECT_NE(entry.name[0], '.') << entry.name;
}

}  // namespace
}  // namespace shardstep
