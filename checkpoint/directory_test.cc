#include "shardstep/checkpoint/directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/checkpoint/small_checkpoint.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CheckpointRootTest : public testing::Test {
 protected:
  std::string Root() const { return temporary_.File("root"); }

  std::vector<std::string> Names(const std::string& folder) {
    std::vector<std::string> names;
    const auto entries = files_->List(JoinPath(Root(), folder));
    for (const DirectoryEntry& entry : entries.value()) {
      names.push_back(entry.name);
    }
    return names;
  }

  void Write(const std::string& id, uint64_t ordinal, uint64_t version, bool automatic = true) {
    Manifest manifest = MakeManifest(model_, id);
    manifest.lineage_ordinal = ordinal;
    manifest.version = version;
    manifest.automatic = automatic;
    ASSERT_OK(WriteSmallCheckpoint(files_, Root(), model_, manifest));
  }

  std::vector<std::string> Listed() {
    std::vector<std::string> ids;
    const auto list = root_.List("digits");
    for (const CheckpointInfo& checkpoint : list.value().checkpoints) {
      ids.push_back(checkpoint.id);
    }
    return ids;
  }

  const TemporaryDirectory temporary_;
  FileSystem* const files_ = PosixFileSystem();
  const SmallModel model_ = TwoServerModel();
  CheckpointRoot root_{files_, Root()};
};

TEST_F(CheckpointRootTest, NamesThatWouldLeaveTheRootAreRefused) {
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected 1 to 128"));
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("../x"), std::string("a/b"),
        std::string("/etc"), std::string(".hidden"), std::string("a b"), std::string("a\0b", 3),
        std::string("\xc3\xa4"), std::string(129, 'a')}) {
    SCOPED_TRACE(name);
    EXPECT_THAT(root_.Begin("digits", name, "t"), refused);
    EXPECT_THAT(root_.Begin(name, "1-1", "t"), refused);
    EXPECT_THAT(root_.CheckProbe("digits", name, "t"), refused);
    EXPECT_THAT(root_.CheckProbe(name, "1-1", "t"), refused);
    EXPECT_THAT(root_.Finish("digits", name, ""), refused);
    EXPECT_THAT(root_.Finish(name, "1-1", ""), refused);
    EXPECT_THAT(root_.Abandon("digits", name), refused);
    EXPECT_THAT(root_.Abandon(name, "1-1"), refused);
    EXPECT_THAT(root_.ReadManifest("digits", name).status(), refused);
    EXPECT_THAT(root_.ReadManifest(name, "1-1").status(), refused);
    EXPECT_THAT(root_.List(name).status(), refused);
    EXPECT_THAT(root_.KeepLast(name, 1).status(), refused);
    EXPECT_THAT(root_.NextOrdinal(name).status(), refused);
  }
  EXPECT_THAT(files_->Exists(Root()), IsOkAndHolds(false));
  EXPECT_OK(root_.Begin("digits", std::string(128, 'a'), "t"));
}

TEST_F(CheckpointRootTest, NamesOfAnotherCaseAreRefused) {
  Write("Best", 1, 1);
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("in case alone"));
  EXPECT_THAT(root_.Begin("digits", "best", "t"), refused);
  EXPECT_THAT(root_.Begin("Digits", "1-1", "t"), refused);
  EXPECT_THAT(root_.ReadManifest("digits", "best").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("did you mean \"Best\"")));
}

TEST_F(CheckpointRootTest, TheProbeTellsRootsApart) {
  ASSERT_OK(root_.Begin("digits", "1-7", "secret"));
  EXPECT_OK(root_.CheckProbe("digits", "1-7", "secret"));
  EXPECT_THAT(
      root_.CheckProbe("digits", "1-7", "other"),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr(Root()), HasSubstr("holds \"secret\", expected \"other\""))));
  const CheckpointRoot elsewhere(files_, temporary_.File("elsewhere"));
  EXPECT_THAT(elsewhere.CheckProbe("digits", "1-7", "secret"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("elsewhere/digits/.tmp-1-7/probe"),
                             HasSubstr("No such file or directory"))));
}

TEST_F(CheckpointRootTest, FinishGivesTheNameAndKeepsNothingElse) {
  Write("1-7", 1, 7);
  EXPECT_THAT(Names("digits"), ElementsAre("1-7"));
  EXPECT_THAT(Names("digits/1-7"),
              ElementsAre("manifest.json", "shard-00000-of-00003.safetensors",
                          "shard-00001-of-00003.safetensors", "shard-00002-of-00003.safetensors"));
  EXPECT_THAT(root_.Begin("digits", "1-7", "t"), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_OK(root_.ReadManifest("digits", "1-7"));
}

TEST_F(CheckpointRootTest, AbandonRemovesEverything) {
  ASSERT_OK(root_.Begin("digits", "1-7", "t"));
  ASSERT_OK(WriteWholeFile(files_, JoinPath(root_.WritingDirectory("digits", "1-7"), "x"), "x"));
  ASSERT_OK(root_.Abandon("digits", "1-7"));
  EXPECT_THAT(Names("digits"), IsEmpty());
  EXPECT_OK(root_.Abandon("digits", "1-7"));
}

TEST_F(CheckpointRootTest, BeginRemovesWhatWasLeftOfThisOptimizer) {
  ASSERT_OK(root_.Begin("digits", "1-6", "t"));
  ASSERT_OK(root_.Begin("other", "1-6", "t"));
  ASSERT_OK(root_.Begin("digits", "1-7", "t"));
  EXPECT_THAT(Names("digits"), ElementsAre(".tmp-1-7"));
  EXPECT_THAT(Names("other"), ElementsAre(".tmp-1-6"));
}

TEST_F(CheckpointRootTest, ListsByOrdinalAndVersionWithProblemsApart) {
  EXPECT_THAT(Listed(), IsEmpty());
  Write("2-5", 2, 5);
  Write("1-10", 1, 10, /*automatic=*/false);
  Write("1-9", 1, 9);
  ASSERT_OK(files_->CreateDirectories(JoinPath(Root(), "digits/none")));
  ASSERT_OK(files_->CreateDirectories(JoinPath(Root(), "digits/7-1")));
  ASSERT_OK(WriteWholeFile(files_, JoinPath(Root(), "digits/7-1/manifest.json"), "{}"));
  ASSERT_OK(WriteWholeFile(files_, JoinPath(Root(), "digits/notes.txt"), "not a checkpoint"));
  ASSERT_OK(files_->CreateDirectories(JoinPath(Root(), "digits/.tmp-9-9")));

  ASSERT_OK_AND_ASSIGN(const CheckpointList list, root_.List("digits"));
  EXPECT_THAT(Listed(), ElementsAre("1-9", "1-10", "2-5"));
  EXPECT_EQ(list.checkpoints[1].version, 10u);
  EXPECT_EQ(list.checkpoints[1].lineage, 5u);
  EXPECT_FALSE(list.checkpoints[1].automatic);
  EXPECT_TRUE(list.checkpoints[2].automatic);
  EXPECT_GT(list.checkpoints[0].bytes, 100);
  ASSERT_EQ(list.problems.size(), 2u);
  EXPECT_EQ(list.problems[0].id, "7-1");
  EXPECT_THAT(list.problems[0].what, HasSubstr("no checksum"));
  EXPECT_EQ(list.problems[1].id, "none");
  EXPECT_THAT(list.problems[1].what, HasSubstr("missing"));
  EXPECT_THAT(root_.NextOrdinal("digits"), IsOkAndHolds(8u));
}

TEST_F(CheckpointRootTest, AManifestIsOfItsPlaceAlone) {
  Write("1-7", 1, 7);
  ASSERT_OK(files_->Rename(root_.Directory("digits", "1-7"), root_.Directory("digits", "1-8")));
  EXPECT_THAT(root_.ReadManifest("digits", "1-8").status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("is of checkpoint \"1-7\"")));
}

TEST_F(CheckpointRootTest, NextOrdinalIsAboveAll) {
  EXPECT_THAT(root_.NextOrdinal("digits"), IsOkAndHolds(1u));
  Write("1-7", 1, 7);
  EXPECT_THAT(root_.NextOrdinal("digits"), IsOkAndHolds(2u));
  Write("best", 41, 7);
  EXPECT_THAT(root_.NextOrdinal("digits"), IsOkAndHolds(42u));
}

TEST_F(CheckpointRootTest, KeepLastRemovesTheOldestAutomaticOnes) {
  Write("2-1", 2, 1);
  Write("1-3", 1, 3);
  Write("1-2", 1, 2, /*automatic=*/false);
  Write("1-1", 1, 1);
  ASSERT_OK(files_->CreateDirectories(JoinPath(Root(), "digits/broken")));
  EXPECT_THAT(root_.KeepLast("digits", 0), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(root_.KeepLast("digits", 3), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(root_.KeepLast("digits", 1), IsOkAndHolds(ElementsAre("1-1", "1-3")));
  EXPECT_THAT(Names("digits"), ElementsAre("1-2", "2-1", "broken"));
}

}  // namespace
}  // namespace shardstep
