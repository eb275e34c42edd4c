#include "shardstep/server/directory_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

TEST(DirectoryLockTest, OneAtATime) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.File("new/data");
  {
    ASSERT_OK_AND_ASSIGN(const auto lock, DirectoryLock::Take(directory));
    EXPECT_THAT(DirectoryLock::Take(directory).status(),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(directory)));
    EXPECT_THAT(ReadWholeFile(PosixFileSystem(), JoinPath(directory, "LOCK"), 100),
                IsOkAndHolds(absl::StrCat(getpid(), "\n")));
  }
  EXPECT_OK(DirectoryLock::Take(directory).status());
}

TEST(DirectoryLockTest, WhatIsNoDirectoryIsNamed) {
  const TemporaryDirectory temporary;
  const std::string path = temporary.File("file");
  ASSERT_OK(WriteWholeFile(PosixFileSystem(), path, ""));
  EXPECT_THAT(DirectoryLock::Take(path).status(), StatusIs(::testing::_, HasSubstr(path)));
}

}  // namespace
}  // namespace shardstep
