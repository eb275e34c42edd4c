#include "shardstep/checkpoint/file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "shardstep/checkpoint/faulty_file_system.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Read(const std::string& path) {
  return ReadWholeFile(PosixFileSystem(), path, 1 << 20).value_or("unreadable");
}

TEST(FileSystemTest, AppendsWritesAnywhereAndReads) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a");
  ASSERT_OK_AND_ASSIGN(auto file, PosixFileSystem()->CreateFile(path));
  ASSERT_OK(file->Append("hello "));
  ASSERT_OK(file->Append("world"));
  ASSERT_OK(file->WriteAt(13, "!"));
  ASSERT_OK(file->Sync());
  ASSERT_OK(file->Close());
  EXPECT_EQ(Read(path), std::string("hello world\0\0!", 14));

  ASSERT_OK_AND_ASSIGN(auto opened, PosixFileSystem()->OpenFile(path));
  char out[8] = {};
  EXPECT_THAT(opened->ReadAt(6, out, 5), IsOkAndHolds(5u));
  EXPECT_EQ(std::string(out), "world");
  EXPECT_THAT(opened->ReadAt(12, out, 5), IsOkAndHolds(2u));
  EXPECT_THAT(opened->ReadAt(100, out, 5), IsOkAndHolds(0u));
  EXPECT_THAT(opened->Size(), IsOkAndHolds(14));
}

TEST(FileSystemTest, ReservedRoomIsWrittenFromItsStart) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a");
  ASSERT_OK_AND_ASSIGN(auto file, PosixFileSystem()->CreateFile(path));
  ASSERT_OK(file->Reserve(0));
  ASSERT_OK(file->Reserve(5));
  ASSERT_OK(file->Append("12"));
  EXPECT_EQ(Read(path), std::string("12\0\0\0", 5));
  EXPECT_THAT(file->Reserve(int64_t{1} << 60), StatusIs(testing::_, HasSubstr("reserve")));
}

TEST(FileSystemTest, SyncsWhatLiesThere) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a");
  ASSERT_OK(WriteWholeFile(PosixFileSystem(), path, "x"));
  EXPECT_OK(PosixFileSystem()->SyncFile(path));
  EXPECT_OK(PosixFileSystem()->SyncDirectory(directory.path()));
  EXPECT_THAT(PosixFileSystem()->SyncFile(path + "b"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(path)));
  EXPECT_THAT(PosixFileSystem()->SyncDirectory(path), StatusIs(testing::_, HasSubstr(path)));
}

TEST(FileSystemTest, ErrorsNamePathAndOperation) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a");
  ASSERT_OK(WriteWholeFile(PosixFileSystem(), path, "x"));
  EXPECT_THAT(PosixFileSystem()->CreateFile(path),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       AllOf(HasSubstr(path), HasSubstr("create"), HasSubstr("File exists"))));
  EXPECT_THAT(PosixFileSystem()->OpenFile(path + "b"),
              StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr(path), HasSubstr("open"))));
  EXPECT_THAT(PosixFileSystem()->CreateDirectories(path + "/b"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("mkdir")));
  EXPECT_THAT(PosixFileSystem()->CreateDirectories(path),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("mkdir")));
  EXPECT_THAT(PosixFileSystem()->List(path + "b"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(ReadWholeFile(PosixFileSystem(), path, 0),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1 bytes")));
}

TEST(FileSystemTest, DirectoriesAreMadeListedRenamedAndRemoved) {
  const TemporaryDirectory directory;
  FileSystem* files = PosixFileSystem();
  ASSERT_OK(files->CreateDirectories(directory.File("b/c")));
  ASSERT_OK(files->CreateDirectories(directory.File("b/c/")));
  ASSERT_OK(WriteWholeFile(files, directory.File("b/a"), "x"));
  ASSERT_OK_AND_ASSIGN(const auto entries, files->List(directory.File("b")));
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_FALSE(entries[0].is_directory);
  EXPECT_EQ(entries[1].name, "c");
  EXPECT_TRUE(entries[1].is_directory);

  ASSERT_OK(files->Rename(directory.File("b"), directory.File("d")));
  ASSERT_OK(files->SyncDirectory(directory.path()));
  EXPECT_THAT(files->Exists(directory.File("b")), IsOkAndHolds(false));
  EXPECT_THAT(files->Exists(directory.File("d/a")), IsOkAndHolds(true));
  EXPECT_THAT(files->Exists(directory.File("d/a/b")), IsOkAndHolds(false));
  ASSERT_OK(RemoveTree(files, directory.File("d")));
  EXPECT_THAT(files->Exists(directory.File("d")), IsOkAndHolds(false));
  EXPECT_OK(RemoveTree(files, directory.File("d")));
}

TEST(FileSystemTest, RemoveTreeLeavesWhatLinksPointTo) {
  const TemporaryDirectory directory;
  ASSERT_OK(PosixFileSystem()->CreateDirectories(directory.File("kept")));
  ASSERT_OK(WriteWholeFile(PosixFileSystem(), directory.File("kept/a"), "x"));
  ASSERT_OK(PosixFileSystem()->CreateDirectories(directory.File("gone")));
  ASSERT_EQ(symlink(directory.File("kept").c_str(), directory.File("gone/link").c_str()), 0);
  ASSERT_OK(RemoveTree(PosixFileSystem(), directory.File("gone")));
  EXPECT_EQ(Read(directory.File("kept/a")), "x");
}

TEST(FaultyFileSystemTest, FailsTheOperationItIsTold) {
  const TemporaryDirectory directory;
  FaultyFileSystem files(PosixFileSystem());
  files.FailAt(1, FaultyFileSystem::Fault::kShortWrite);  // create, write, sync, close
  EXPECT_THAT(WriteWholeFile(&files, directory.File("a"), "1234"),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(Read(directory.File("a")), "12");
  EXPECT_TRUE(files.struck());
  EXPECT_OK(WriteWholeFile(&files, directory.File("b"), "1234"));
  EXPECT_EQ(files.mutations(), 6);

  files.FailAt(0, FaultyFileSystem::Fault::kCrash);
  EXPECT_FALSE(files.RemoveFile(directory.File("b")).ok());
  EXPECT_FALSE(files.RemoveFile(directory.File("b")).ok());
  EXPECT_FALSE(files.List(directory.path()).ok());
  EXPECT_EQ(Read(directory.File("b")), "1234");
}

}  // namespace
}  // namespace shardstep
