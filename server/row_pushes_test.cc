// Gradients that consist of rows, on the state machines alone: what arrives, what becomes of it,
// what is refused, and what a log brings back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kRows = 7;

// Rows with one number for both of their elements.
using PushedRows = std::vector<std::pair<int64_t, float>>;

class RowPushesTest : public ::testing::Test {
 protected:
  // "w" of 7 x 2, rows 0-2, 3-5 and 6 on the three servers.
  void Start(const std::string& kind, const OptionMap& options, int trainers = 1,
             NodeOptions node = TestFleet::DefaultOptions()) {
    fleet_ = std::make_unique<TestFleet>(
        3,
        absl::StrCat(::testing::TempDir(), "/rows-", fleets_++, "-",
                     ::testing::UnitTest::GetInstance()->current_test_info()->name()),
        node);
    OptimizerDefinition definition =
        TestFleet::Definition({{"w", kRows}}, {}, Synchronous{trainers}, 3);
    definition.parameters[0].sizes = {kRows, 2};
    definition.kind = kind;
    definition.defaults = CompleteOptions(kind, options).value();
    definition.groups[0].options = definition.defaults;
    sessions_.clear();
    for (int rank = 0; rank < trainers; ++rank) {
      sessions_.push_back(fleet_->OpenSession(rank, absl::StrCat("t", rank)));
    }
    ASSERT_OK(fleet_->Create(definition, sessions_[0]));
  }

  absl::Status PushTo(int server, uint64_t session, uint64_t sequence, const PushedRows& rows) {
    v1::Begin begin;
    begin.mutable_header()->set_session(session);
    begin.mutable_header()->set_sequence(sequence);
    begin.set_weight(1);
    Answer<std::shared_ptr<shardstep::Push>> push;
    fleet_->host(server).BeginPush(begin, push.reply());
    SHARDSTEP_RETURN_IF_ERROR(push.status());
    const LocalShardInfo& shard = fleet_->layout(server)->local[0];
    std::string numbers, elements;
    v1::FrameHeader header;
    v1::Slice* const slice = header.mutable_slices()->add_slices();
    slice->set_shard(shard.shard);
    slice->set_dtype(v1::FLOAT32);
    slice->set_body(v1::Slice::ROWS);
    slice->set_row_elements(2);
    for (const auto& [row, value] : rows) {
      const int64_t number = row - shard.region.offsets[0];
      // A row that there is not goes to server 0.
      if (row < kRows ? number < 0 || number >= shard.rows : server != 0) continue;
      slice->set_count(slice->count() + 1);
      numbers.append(reinterpret_cast<const char*>(&number), sizeof(number));
      const float pair[] = {value, value};
      elements.append(reinterpret_cast<const char*>(pair), sizeof(pair));
    }
    const std::string payload = numbers + elements;
    const FramePrefix prefix = EncodeFramePrefix(header, {payload});
    SHARDSTEP_ASSIGN_OR_RETURN(const FrameView frame, DecodeFrame({prefix.bytes, payload}));
    if (!(*push)->repeat) SHARDSTEP_RETURN_IF_ERROR((*push)->assembly.Apply(frame));
    FrameDigest digest;
    digest.Add(prefix.crc32c);
    v1::End end;
    end.set_frames(1);
    end.set_digest(digest.value());
    end.set_touched("\x01");
    end.set_rows("\x01");
    absl::Status ended = absl::UnknownError("no answer");
    fleet_->host(server).EndPush(*push, end, [&](absl::Status status) { ended = status; });
    return ended;
  }

  absl::Status Push(size_t trainer, uint64_t sequence, const PushedRows& rows) {
    for (int server = 0; server < 3; ++server) {
      SHARDSTEP_RETURN_IF_ERROR(PushTo(server, sessions_[trainer], sequence, rows));
    }
    return absl::OkStatus();
  }

  absl::Status PushAndStep(uint64_t sequence, const PushedRows& rows,
                           const v1::StepRequest& more = {}) {
    SHARDSTEP_RETURN_IF_ERROR(Push(0, sequence, rows));
    return fleet_->Step(sessions_[0], sequence, sequence, sequence, more)->status();
  }

  // The first elements of the rows; the second ones are the same.
  std::vector<float> Column(const std::string& name = "w") {
    const absl::StatusOr<Values> values = fleet_->ReadEverything();
    EXPECT_OK(values);
    std::vector<float> column;
    const std::vector<float>& all = values->at(name);
    for (size_t i = 0; i < all.size(); i += 2) {
      EXPECT_EQ(all[i], all[i + 1]);
      column.push_back(all[i]);
    }
    return column;
  }

  std::unique_ptr<TestFleet> fleet_;
  std::vector<uint64_t> sessions_;
  int fleets_ = 0;
};

TEST_F(RowPushesTest, RowsAreSummedAndNoOthersMove) {
  Start("SGD", {{"lr", 1.0}});
  ASSERT_OK(Push(0, 1, {{5, 1}, {0, 2}, {5, 3}, {6, 4}}));
  ASSERT_OK(Push(0, 2, {{5, 10}}));
  const auto step = fleet_->Step(sessions_[0], 1, 1, 2);
  ASSERT_OK(step->status());
  EXPECT_THAT(Column(), ElementsAre(-2, 0, 0, 0, 0, -14, -4));
  EXPECT_FLOAT_EQ((*step)->committed().grad_norm(), std::sqrt(2 * (4 + 196 + 16.0f)));
}

TEST_F(RowPushesTest, RowsAreAddedIntoTheWholeOfAnotherTrainer) {
  Start("SGD", {{"lr", 1.0}}, 2);
  ASSERT_OK(Push(0, 1, {{3, 4}, {3, 2}}));
  ASSERT_OK(fleet_->Push(sessions_[1], 1, {{"w", 2}}));
  const auto first = fleet_->Step(sessions_[0], 1, 1, 1);
  ASSERT_OK(fleet_->Step(sessions_[1], 1, 1, 1)->status());
  ASSERT_OK(first->status());
  EXPECT_THAT(Column(), ElementsAre(-1, -1, -1, -4, -1, -1, -1));
}

TEST_F(RowPushesTest, TrainersMeanIsOverAllOfThem) {
  Start("SGD", {{"lr", 1.0}}, 2);
  ASSERT_OK(Push(0, 1, {{1, 4}}));
  ASSERT_OK(Push(1, 1, {{1, 2}, {6, 8}}));
  const auto first = fleet_->Step(sessions_[0], 1, 1, 1);
  ASSERT_OK(fleet_->Step(sessions_[1], 1, 1, 1)->status());
  ASSERT_OK(first->status());
  EXPECT_THAT(Column(), ElementsAre(0, -3, 0, 0, 0, 0, -4));
}

TEST_F(RowPushesTest, OptimizersThatTakeNoRowsRefuseThemAndNothingChanges) {
  Start("Adam", {});
  EXPECT_THAT(
      PushAndStep(1, {{0, 1}}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "Adam does not support sparse gradients, please consider SparseAdam instead"));
  EXPECT_THAT(Column(), Each(0));
  ASSERT_OK(fleet_->Push(sessions_[0], 2, {{"w", 2}}));
  const auto step = fleet_->Step(sessions_[0], 1, 2, 2);
  ASSERT_OK(step->status());
  EXPECT_EQ((*step)->committed().version(), 1u);
}

TEST_F(RowPushesTest, SparseAdamRefusesWholeGradients) {
  Start("SparseAdam", {{"lr", 0.1}});
  ASSERT_OK(PushAndStep(1, {{0, 1}}));
  const std::vector<float> before = Column();
  ASSERT_OK(fleet_->Push(sessions_[0], 2, {{"w", 2}}));
  EXPECT_THAT(
      fleet_->Step(sessions_[0], 2, 2, 2)->status(),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "SparseAdam does not support dense gradients, please consider Adam instead"));
  EXPECT_EQ(Column(), before);
}

TEST_F(RowPushesTest, OptionsOfTheStepItselfAreJudged) {
  Start("Adagrad", {{"lr", 1.0}});
  v1::StepRequest more;
  v1::OptionSetting* const setting = more.add_set_options();
  setting->mutable_option()->set_name("weight_decay");
  setting->mutable_option()->mutable_value()->set_double_value(0.5);
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument,
                                "weight_decay option is not compatible with sparse gradients");
  EXPECT_THAT(PushAndStep(1, {{0, 1}}, more), refused);
  EXPECT_THAT(Column(), Each(0));
  // The option was not set, so the same push goes without it.
  ASSERT_OK(fleet_->Step(sessions_[0], 1, 1, 1)->status());
  EXPECT_FLOAT_EQ(Column()[0], -1);
  ASSERT_OK(fleet_->Push(sessions_[0], 2, {{"w", 0}}));
  ASSERT_OK(fleet_->Step(sessions_[0], 2, 2, 2, more)->status());
  EXPECT_THAT(Push(0, 3, {{0, 1}}), IsOk());
  EXPECT_THAT(fleet_->Step(sessions_[0], 3, 3, 3)->status(), refused);
}

TEST_F(RowPushesTest, ARepeatedPushAddsNothing) {
  Start("SGD", {{"lr", 1.0}});
  ASSERT_OK(Push(0, 1, {{5, 1}, {0, 2}}));
  ASSERT_OK(Push(0, 1, {{5, 1}, {0, 2}}));
  EXPECT_EQ(ReasonOf(Push(0, 1, {{5, 1}, {0, 3}})), v1::SEQ_REUSE);
  EXPECT_EQ(ReasonOf(Push(0, 1, {{5, 1}, {1, 2}})), v1::SEQ_REUSE);
  ASSERT_OK(fleet_->Step(sessions_[0], 1, 1, 1)->status());
  EXPECT_THAT(Column(), ElementsAre(-2, 0, 0, 0, 0, -1, 0));
  // Once consumed, too.
  ASSERT_OK(Push(0, 1, {{5, 1}, {0, 2}}));
  EXPECT_EQ(ReasonOf(Push(0, 1, {{5, 1}, {0, 3}})), v1::SEQ_REUSE);
}

TEST_F(RowPushesTest, BadRowsTakeNoMemory) {
  Start("SGD", {{"lr", 1.0}});
  EXPECT_THAT(PushTo(0, sessions_[0], 1, {{0, 1}, {kRows, 1}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("row 7, the shard has 3")));
  EXPECT_THAT(PushTo(0, sessions_[0], 1, {{0, 1}, {0, 1}, {1, 1}, {0, 1}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("4 rows of shard 0")));
  EXPECT_EQ(fleet_->node(0).push_memory().used(), 0);
  ASSERT_OK(PushAndStep(1, {{0, 1}}));
  EXPECT_EQ(fleet_->node(0).push_memory().used(), 0);
}

TEST_F(RowPushesTest, RowsTakePushMemory) {
  NodeOptions options = TestFleet::DefaultOptions();
  options.push_memory = 600;  // one chunk of rows and what comes with it
  Start("SGD", {{"lr", 1.0}}, 1, options);
  ASSERT_OK(Push(0, 1, {{0, 1}}));
  EXPECT_GE(fleet_->node(0).push_memory().used(), 16);
  EXPECT_EQ(Push(0, 2, {{0, 1}}).code(), absl::StatusCode::kResourceExhausted);
  ASSERT_OK(fleet_->Step(sessions_[0], 1, 1, 1)->status());
  EXPECT_EQ(fleet_->node(0).push_memory().used(), 0);
  ASSERT_OK(PushAndStep(2, {{0, 1}}));
  EXPECT_EQ(Column()[0], -2);
}

TEST_F(RowPushesTest, AHeldVersionStaysAsItIs) {
  Start("SGD", {{"lr", 1.0}});
  v1::StepRequest hold;
  hold.set_want_snapshot(v1::PARAMETERS);
  ASSERT_OK(Push(0, 1, {{5, 1}}));
  const auto step = fleet_->Step(sessions_[0], 1, 1, 1, hold);
  ASSERT_OK(step->status());
  ASSERT_OK_AND_ASSIGN(const Values before,
                       fleet_->Read((*step)->committed().snapshot().snapshot()));
  ASSERT_OK(PushAndStep(2, {{5, 1}, {0, 1}}));
  ASSERT_OK_AND_ASSIGN(const Values after,
                       fleet_->Read((*step)->committed().snapshot().snapshot()));
  EXPECT_EQ(before, after);
  EXPECT_THAT(Column(), ElementsAre(-1, 0, 0, 0, 0, -2, 0));
}

// Servers die with rows committed and with rows prepared; what comes back is what a fleet has that
// went on without a break, to the bit.
TEST_F(RowPushesTest, TheLogBringsRowsBack) {
  const PushedRows first = {{5, 0.3f}, {0, 0.7f}, {5, 0.1f}}, second = {{0, 0.9f}, {6, 0.2f}};
  for (const std::string kind : {"SparseAdam", "Adagrad", "SGD"}) {
    const OptionMap options = {{"lr", 0.1}};
    Start(kind, options);
    ASSERT_OK(PushAndStep(1, first));
    ASSERT_OK(PushAndStep(2, second));
    ASSERT_OK_AND_ASSIGN(const Values expected, fleet_->ReadEverything());
    NodeOptions node = TestFleet::DefaultOptions();
    node.durability = Durability::kWal;
    Start(kind, options, 1, node);
    ASSERT_OK(PushAndStep(1, first));
    for (int server = 0; server < 3; ++server) fleet_->Restart(server);
    fleet_->Advance(absl::Seconds(1));
    ASSERT_OK(Push(0, 2, second));
    // Server 2 prepares and is not told what was decided.
    fleet_->Cut(1);
    const auto step = fleet_->Step(sessions_[0], 2, 2, 2);
    EXPECT_FALSE(step->there());
    fleet_->Restart(2);
    fleet_->Heal(1);
    fleet_->Advance(absl::Seconds(1));
    ASSERT_OK(step->status());
    ASSERT_OK_AND_ASSIGN(const Values values, fleet_->ReadEverything());
    EXPECT_EQ(values, expected) << kind;
  }
}

}  // namespace
}  // namespace shardstep
