// A checkpoint, or the removal of one, that is interrupted at any write, rename or sync.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/directory.h"
#include "shardstep/checkpoint/faulty_file_system.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/small_checkpoint.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/checkpoint/verify.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::Contains;
using ::testing::Field;
using ::testing::IsEmpty;

using Fault = FaultyFileSystem::Fault;

class InterruptionTest : public testing::TestWithParam<Fault> {
 protected:
  // Fails `work` at each operation in turn, each time in a directory of its own that `before` has
  // filled, and lets `after` look at what is left. Returns how many operations there were.
  template <typename Before, typename Work, typename After>
  int Interrupt(Before before, Work work, After after) {
    for (int at = 0;; ++at) {
      SCOPED_TRACE(absl::StrCat("interrupted at operation ", at));
      const TemporaryDirectory directory;
      root_ = directory.path();
      before();
      FaultyFileSystem files(PosixFileSystem());
      files.FailAt(at, GetParam());
      const absl::Status status = work(&files);
      if (!files.struck()) {
        EXPECT_OK(status);
        return at;
      }
      EXPECT_FALSE(status.ok());
      after();
      if (HasFailure() || at == 1000) return -1;
    }
  }

  absl::Status Write(FileSystem* files, const std::string& id) {
    Manifest manifest = MakeManifest(model_, id);
    manifest.automatic = true;
    manifest.version = id.back();
    return WriteSmallCheckpoint(files, root_, model_, manifest);
  }

  // Every checkpoint that has an id is whole.
  std::vector<CheckpointInfo> CheckWhole() {
    const absl::StatusOr<CheckpointList> list =
        CheckpointRoot(PosixFileSystem(), root_).List("digits");
    EXPECT_OK(list);
    EXPECT_THAT(list->problems, IsEmpty());
    for (const CheckpointInfo& checkpoint : list->checkpoints) {
      EXPECT_THAT(
          VerifyCheckpoint(PosixFileSystem(), root_, "digits", checkpoint.id, [](int64_t) {}),
          IsOkAndHolds(IsEmpty()));
    }
    return list->checkpoints;
  }

  bool AnythingTemporary() {
    const auto entries = PosixFileSystem()->List(JoinPath(root_, "digits"));
    for (const DirectoryEntry& entry : entries.value()) {
      if (absl::StartsWith(entry.name, ".")) return true;
    }
    return false;
  }

  const SmallModel model_ = TwoServerModel();
  std::string root_;
};

TEST_P(InterruptionTest, OfWritingLeavesThePreviousOneAndTheNextCleansUp) {
  int left = 0;
  const int operations =
      Interrupt([&] { ASSERT_OK(Write(PosixFileSystem(), "1-1")); },
                [&](FileSystem* files) { return Write(files, "1-2"); },
                [&] {
                  EXPECT_THAT(CheckWhole(), Contains(Field(&CheckpointInfo::id, "1-1")));
                  left += AnythingTemporary() ? 1 : 0;
                  EXPECT_OK(Write(PosixFileSystem(), "1-3"));
                  EXPECT_FALSE(AnythingTemporary());
                  EXPECT_THAT(CheckWhole(), Contains(Field(&CheckpointInfo::id, "1-3")));
                });
  // Of each of three files, the probe and the manifest: create, write, sync, close.
  EXPECT_GE(operations, 5 * 4 + 4);
  EXPECT_GE(left, 5 * 4);
}

TEST_P(InterruptionTest, OfRemovalLeavesNoHalfCheckpoint) {
  const int operations = Interrupt(
      [&] {
        for (const char* id : {"1-1", "1-2", "1-3"}) ASSERT_OK(Write(PosixFileSystem(), id));
      },
      [&](FileSystem* files) {
        return CheckpointRoot(files, root_).KeepLast("digits", 1).status();
      },
      [&] {
        EXPECT_THAT(CheckWhole(), Contains(Field(&CheckpointInfo::id, "1-3")));
        ASSERT_OK_AND_ASSIGN(const auto removed,
                             CheckpointRoot(PosixFileSystem(), root_).KeepLast("digits", 1));
        EXPECT_EQ(CheckWhole().size(), 1u);
        EXPECT_OK(Write(PosixFileSystem(), "1-4"));
        EXPECT_FALSE(AnythingTemporary());
      });
  // Of each of two: rename, sync, four files, the directory.
  EXPECT_EQ(operations, 2 * 7);
}

INSTANTIATE_TEST_SUITE_P(Faults, InterruptionTest,
                         testing::Values(Fault::kShortWrite, Fault::kCrash));

}  // namespace
}  // namespace shardstep
