// add_param_group and load, as changes: three servers in one thread, no sockets.

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LoadsTest : public ::testing::Test {
 protected:
  void Start(Mode mode = Synchronous(1)) {
    session_ = fleet_.OpenSession(0, "t0");
    ASSERT_OK(fleet_.Create(
        TestFleet::Definition({{"a", 7}, {"b", 2}}, {{"lr", 1.0}, {"momentum", 0.5}}, mode, 3),
        session_));
  }
  absl::StatusOr<v1::StepReply> StepOnce(uint64_t sequence,
                                         const std::map<std::string, float>& gradients,
                                         const std::string& trainer_state = "") {
    absl::Status pushed = fleet_.Push(session_, sequence, gradients);
    if (!pushed.ok()) return pushed;
    v1::StepRequest more;
    more.set_trainer_state(trainer_state);
    const auto step = fleet_.Step(session_, sequence, sequence, sequence, more);
    if (!step->status().ok()) return step->status();
    return **step;
  }
  v1::ProposeRequest AddRequest(const std::string& name, double lr) const {
    v1::AddParamGroupChange change;
    v1::Parameter* parameter = change.add_parameters();
    parameter->set_name(name);
    parameter->set_dtype(v1::FLOAT32);
    parameter->add_sizes(4);
    *change.mutable_options() = OptionMapToProto({{"lr", lr}});
    v1::ProposeRequest request;
    request.mutable_header()->set_session(session_);
    *request.mutable_add_param_group() = PagedMessage(change.SerializeAsString()).page(0).value();
    return request;
  }
  // Values and momentum of a and b; whatever is named in `without` is left out.
  v1::LoadChange Source(const std::string& digest) const {
    v1::LoadChange change;
    change.set_digest(digest);
    change.set_strict(true);
    change.set_version(40);
    for (const auto& [name, size] : {std::pair{"a", 7}, std::pair{"b", 2}}) {
      v1::LoadChange::Tensors* tensors = change.add_tensors();
      tensors->set_parameter(name);
      tensors->set_dtype(v1::FLOAT32);
      tensors->add_sizes(size);
      tensors->set_value(true);
      tensors->add_states("momentum_buffer");
    }
    return change;
  }
  absl::StatusOr<v1::ProposeReply::Done> Load(const v1::LoadChange& change, uint64_t lineage,
                                              const Fills& fills) {
    v1::ProposeRequest request;
    request.mutable_header()->set_session(session_);
    request.mutable_header()->set_lineage(lineage);
    *request.mutable_load() = PagedMessage(change.SerializeAsString()).page(0).value();
    return fleet_.Propose(request, fills);
  }
  uint64_t Lineage() {
    Answer<v1::ListOptimizersReply> list;
    fleet_.node(0).ListOptimizers(list.reply());
    return list->optimizers(0).lineage();
  }

  const Fills source_ = {{{"a", ""}, 10},
                         {{"b", ""}, 20},
                         {{"a", "momentum_buffer"}, 3},
                         {{"b", "momentum_buffer"}, 4}};
  TestFleet fleet_{3, ::testing::TempDir() + "/" +
                          ::testing::UnitTest::GetInstance()->current_test_info()->name()};
  uint64_t session_ = 0;
};

TEST_F(LoadsTest, AnAddedGroupIsAVersionAndKeepsWhatStands) {
  Start();
  ASSERT_OK(StepOnce(1, {{"a", 1}}).status());
  // A push made before the group is there is consumed after it.
  ASSERT_OK(fleet_.Push(session_, 2, {{"a", 1}}));
  const auto added = fleet_.Propose(AddRequest("c", 0.25), {{{"c", ""}, 8}});
  ASSERT_OK(added.status());
  EXPECT_EQ(added->version(), 2);
  const auto step = fleet_.Step(session_, 2, 2, 2);
  ASSERT_OK(step->status());
  EXPECT_EQ((*step)->committed().version(), 3);
  ASSERT_OK(StepOnce(3, {{"c", 4}}).status());
  v1::Description description;
  const auto values = fleet_.ReadEverything(&description);
  ASSERT_OK(values.status());
  EXPECT_THAT(values->at("a"), Each(-2.5));  // 1, then 0.5 * 1 + 1
  EXPECT_THAT(values->at("a/momentum_buffer"), Each(1.5));
  EXPECT_THAT(values->at("c"), Each(7));
  ASSERT_EQ(description.groups_size(), 2);
  EXPECT_EQ(OptionMapFromProto(description.groups(1).options())->Number("momentum"), 0.5);
}

TEST_F(LoadsTest, AddingAnEqualGroupAgainChangesNothingAndATakenNameIsRefused) {
  Start();
  ASSERT_OK(fleet_.Propose(AddRequest("c", 0.25), {{{"c", ""}, 8}}).status());
  const auto again = fleet_.Propose(AddRequest("c", 0.25), {{{"c", ""}, 9}});
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version(), 1);
  EXPECT_THAT(fleet_.ReadNow()->at("c"), Each(8));
  EXPECT_THAT(fleet_.Propose(AddRequest("c", 0.5), {}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("some parameters appear in more than one parameter group")));
  EXPECT_THAT(fleet_.Propose(AddRequest("d", -1), {}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Invalid learning rate")));
  // Whoever comes later still attaches with the definition of the creation.
  ASSERT_OK(
      fleet_.Create(TestFleet::Definition({{"a", 7}, {"b", 2}}, {{"lr", 1.0}, {"momentum", 0.5}},
                                          Synchronous(1), 3),
                    session_));
}

TEST_F(LoadsTest, OptionsSetWhileAGroupIsStagedStay) {
  Start();
  v1::ProposeRequest request = AddRequest("c", 0.25);
  request.mutable_header()->set_optimizer("m");
  const Caller caller{fleet_.clock().Now() + absl::Minutes(1)};
  Answer<v1::ProposeReply> staging;
  fleet_.coordinator().Propose(request, caller, staging.reply());
  ASSERT_TRUE(staging->has_staging()) << staging->ShortDebugString();
  ASSERT_OK(fleet_.Push(session_, 1, {{"a", 1}}));
  v1::StepRequest set;
  v1::OptionSetting* setting = set.add_set_options();
  setting->mutable_option()->set_name("lr");
  *setting->mutable_option()->mutable_value() = OptionValueToProto(0.125);
  ASSERT_OK(fleet_.Step(session_, 1, 1, 1, set)->status());
  ASSERT_OK(fleet_.Propose(AddRequest("c", 0.25), {{{"c", ""}, 8}}).status());
  ASSERT_OK(StepOnce(2, {{"a", 1}}).status());
  EXPECT_THAT(fleet_.ReadNow()->at("a"), Each(-0.125 - 0.125 * 1.5));
}

TEST_F(LoadsTest, LoadReplacesValuesStateVersionAndLineage) {
  Start();
  ASSERT_OK(StepOnce(1, {{"a", 1}}, "old").status());
  const uint64_t lineage = Lineage();
  v1::LoadChange change = Source("d1");
  v1::TrainerState* trainer = change.add_trainers();
  trainer->set_state("batch 40");
  const auto loaded = Load(change, lineage, source_);
  ASSERT_OK(loaded.status());
  EXPECT_EQ(loaded->version(), 40);
  EXPECT_NE(loaded->lineage(), lineage);
  const auto values = fleet_.ReadEverything();
  ASSERT_OK(values.status());
  EXPECT_THAT(values->at("a"), Each(10));
  EXPECT_THAT(values->at("b/momentum_buffer"), Each(4));
  // The same again, by whoever believed in the old lineage: nothing happens.
  const auto again = Load(change, lineage, source_);
  ASSERT_OK(again.status());
  EXPECT_EQ(again->lineage(), loaded->lineage());
  // And the run goes on from there.
  const auto step = StepOnce(2, {{"b", 1}});
  ASSERT_OK(step.status());
  EXPECT_EQ(step->committed().version(), 41);
  EXPECT_THAT(fleet_.ReadNow()->at("b"), Each(20 - (0.5 * 4 + 1)));
}

TEST_F(LoadsTest, CallsOfTheReplacedLineageAreToldWhereToGoOn) {
  Start();
  const uint64_t lineage = Lineage();
  ASSERT_OK(fleet_.Push(session_, 1, {{"a", 1}}));
  v1::LoadChange change = Source("d1");
  change.add_trainers()->set_state("batch 40");
  ASSERT_OK(Load(change, lineage, source_).status());
  v1::StepRequest old;
  old.mutable_header()->set_lineage(lineage);
  const absl::Status refused = fleet_.Step(session_, 1, 1, 1, old)->status();
  ASSERT_EQ(ReasonOf(refused), v1::ROLLED_BACK) << refused;
  EXPECT_THAT(refused.message(), HasSubstr("was loaded: it is at version 40"));
  const v1::RollBack roll_back = ErrorDetailOf(refused)->roll_back();
  EXPECT_EQ(roll_back.cause(), v1::RollBack::LOAD);
  EXPECT_EQ(roll_back.version(), 40);
  EXPECT_EQ(roll_back.trainer_state(), "batch 40");
  // The push is gone with the lineage it was made in.
  EXPECT_EQ(ReasonOf(fleet_.Step(session_, 1, 1, 1)->status()), v1::MISSING);
  v1::LoadChange other = Source("d2");
  EXPECT_EQ(ReasonOf(Load(other, lineage, source_).status()), v1::ROLLED_BACK);
}

TEST_F(LoadsTest, AStepThatWasCommittedBeforeALoadIsAnsweredAsRecorded) {
  Start();
  const uint64_t lineage = Lineage();
  ASSERT_OK(fleet_.Push(session_, 1, {{"a", 1}}));
  v1::StepRequest old;
  old.mutable_header()->set_lineage(lineage);
  ASSERT_OK(fleet_.Step(session_, 1, 1, 1, old)->status());
  ASSERT_OK(Load(Source("d1"), lineage, source_).status());
  const auto again = fleet_.Step(session_, 1, 1, 1, old);
  ASSERT_OK(again->status());
  EXPECT_EQ((*again)->committed().version(), 1);
  EXPECT_EQ((*again)->committed().lineage(), lineage);
  EXPECT_EQ(ReasonOf(fleet_.Step(session_, 2, 2, 2, old)->status()), v1::ROLLED_BACK);
}

TEST_F(LoadsTest, AWaitingStepEndsWithTheLineage) {
  Start(Synchronous(2));
  const uint64_t other = fleet_.OpenSession(1, "t1");
  ASSERT_OK(fleet_.Push(other, 1, {{"a", 1}}));
  const auto waiting = fleet_.Step(other, 1, 1, 1);
  ASSERT_FALSE(waiting->there());
  ASSERT_OK(Load(Source("d1"), Lineage(), source_).status());
  ASSERT_TRUE(waiting->there());
  EXPECT_EQ(ReasonOf(waiting->status()), v1::ROLLED_BACK);
}

TEST_F(LoadsTest, StrictSaysAllThatIsMissingAndUnexpected) {
  Start();
  v1::LoadChange change = Source("d1");
  change.mutable_tensors(0)->set_parameter("z");
  change.mutable_tensors(1)->add_states("exp_avg");
  v1::LoadChange::Tensors* extra = change.add_tensors();
  extra->set_parameter("y");
  extra->set_value(true);
  const absl::Status refused = Load(change, Lineage(), source_).status();
  EXPECT_THAT(
      refused,
      StatusIs(
          absl::StatusCode::kInvalidArgument,
          AllOf(HasSubstr("Error(s) in loading state_dict"),
                HasSubstr("All state keys must be params. The following keys are not: {\"z\"}"),
                HasSubstr("Missing key(s) in state_dict: \"model.a\""), HasSubstr("\"model.y\""),
                HasSubstr("\"optim.state.b.exp_avg\""))));
  EXPECT_THAT(fleet_.ReadNow()->at("b"), Each(0));
}

TEST_F(LoadsTest, NotStrictLoadsWhatThereIsAndReportsTheRest) {
  Start();
  v1::LoadChange change = Source("d1");
  change.set_strict(false);
  change.mutable_tensors(0)->set_parameter("z");
  const auto loaded = Load(change, Lineage(), {{{"b", ""}, 20}, {{"b", "momentum_buffer"}, 4}});
  ASSERT_OK(loaded.status());
  EXPECT_THAT(loaded->missing_keys(), ElementsAre("model.a"));
  EXPECT_THAT(loaded->unexpected_keys(), ElementsAre("model.z", "optim.state.z.momentum_buffer"));
  EXPECT_THAT(fleet_.ReadNow()->at("a"), Each(0));
  EXPECT_THAT(fleet_.ReadNow()->at("b"), Each(20));
  change.mutable_tensors(1)->set_sizes(0, 3);
  EXPECT_THAT(Load(change, Lineage(), {}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("size mismatch for b")));
}

TEST_F(LoadsTest, GroupsMatchByTheirNames) {
  Start();
  v1::LoadChange change = Source("d1");
  v1::NamedGroup* group = change.add_groups();
  group->add_parameters("b");
  group->add_parameters("a");
  *group->mutable_options() = OptionMapToProto({{"lr", 2.0}, {"fused", true}});
  ASSERT_OK(Load(change, Lineage(), source_).status());
  ASSERT_OK(StepOnce(1, {{"a", 1}}).status());
  EXPECT_THAT(fleet_.ReadNow()->at("a"), Each(10 - 2 * (0.5 * 3 + 1)));
  v1::LoadChange wrong = Source("d2");
  wrong.add_groups()->add_parameters("b");
  EXPECT_THAT(Load(wrong, Lineage(), source_).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"param_groups.0\"")));
}

TEST_F(LoadsTest, ALoadWhoseValuesNeverAllComeChangesNothing) {
  Start();
  const uint64_t lineage = Lineage();
  Fills bad = source_;
  bad.erase({"b", "momentum_buffer"});
  const auto loaded = Load(Source("d1"), lineage, bad);
  EXPECT_FALSE(loaded.ok());
  EXPECT_THAT(fleet_.ReadNow()->at("a"), Each(0));
  EXPECT_EQ(Lineage(), lineage);
  // The session goes silent; the staging goes with its lease and others can load.
  fleet_.Advance(absl::Minutes(2));
  session_ = fleet_.OpenSession(0, "another");
  ASSERT_OK(Load(Source("d3"), lineage, source_).status());
  EXPECT_THAT(fleet_.ReadNow()->at("a"), Each(10));
}

TEST_F(LoadsTest, AClientThatDiesAnywhereInALoadChangesNothing) {
  Start();
  ASSERT_OK(StepOnce(1, {{"a", 1}}).status());
  const Values before = fleet_.ReadEverything().value();
  const uint64_t lineage = Lineage();
  int deaths = 0;
  for (int servers = 0; servers <= 3; ++servers) {
    for (size_t tensors = 0; tensors <= source_.size(); ++tensors) {
      if (servers == 3 && tensors == source_.size()) continue;  // that would be all
      v1::ProposeRequest request;
      request.mutable_header()->set_optimizer("m");
      request.mutable_header()->set_session(session_);
      request.mutable_header()->set_lineage(lineage);
      *request.mutable_load() =
          PagedMessage(Source(absl::StrCat("d", deaths)).SerializeAsString()).page(0).value();
      Answer<v1::ProposeReply> staging;
      fleet_.coordinator().Propose(request, {fleet_.clock().Now() + absl::Minutes(1)},
                                   staging.reply());
      ASSERT_TRUE(staging.there() && staging->has_staging());
      Fills part;
      for (const auto& fill : source_) {
        if (part.size() < tensors) part.insert(fill);
      }
      ASSERT_OK(fleet_.Stage(staging->staging(), session_, part, servers));
      session_ = fleet_.OpenSession(0, absl::StrCat("after death ", ++deaths));
      ASSERT_EQ(fleet_.ReadEverything().value(), before);
      ASSERT_EQ(Lineage(), lineage);
    }
  }
  ASSERT_OK(Load(Source("whole"), lineage, source_).status());
  EXPECT_THAT(fleet_.ReadNow()->at("a"), Each(10));
}

}  // namespace
}  // namespace shardstep
