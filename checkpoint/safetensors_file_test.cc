#include "shardstep/checkpoint/safetensors_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/faulty_file_system.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

std::vector<SafetensorsEntry> Entries() {
  return {{"a", DType::kFloat32, {2}}, {"empty", DType::kInt8, {0}}, {"b", DType::kUInt8, {5}}};
}

size_t FilesIn(const TemporaryDirectory& directory) {
  return PosixFileSystem()->List(directory.path()).value().size();
}

// Writes Entries() with bytes "01234567" and "abcde", or fails.
absl::Status Write(FileSystem* files, const std::string& path) {
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer =
      SafetensorsWriter::Create(files, path, Entries(), {{"format", "pt"}});
  if (!writer.ok()) return writer.status();
  absl::Status status = (*writer)->WriteAt(2, 0, "abcde");
  if (status.ok()) status = (*writer)->WriteAt(0, 4, "4567");
  if (status.ok()) status = (*writer)->WriteAt(0, 0, "0123");
  return status.ok() ? (*writer)->Commit() : status;
}

TEST(SafetensorsFileTest, WhatIsWrittenIsRead) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.safetensors");
  ASSERT_OK(Write(PosixFileSystem(), path));
  EXPECT_EQ(FilesIn(directory), 1u);
  ASSERT_OK_AND_ASSIGN(const auto reader, SafetensorsReader::Open(PosixFileSystem(), path));
  ASSERT_EQ(reader.entries().size(), 3u);
  EXPECT_EQ(reader.metadata().at("format"), "pt");
  std::string out(8, '\0');
  ASSERT_OK(reader.Read(0, 0, out.data(), 8));
  EXPECT_EQ(out, "01234567");
  ASSERT_OK(reader.Read(2, 1, out.data(), 3));
  EXPECT_EQ(out.substr(0, 3), "bcd");
  ASSERT_OK(reader.Read(1, 0, nullptr, 0));
}

TEST(SafetensorsFileTest, RangesAreChecked) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.safetensors");
  ASSERT_OK(Write(PosixFileSystem(), path));
  ASSERT_OK_AND_ASSIGN(const auto reader, SafetensorsReader::Open(PosixFileSystem(), path));
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path));
  char out[16];
  EXPECT_THAT(reader.Read(0, 0, out, 9), refused);
  EXPECT_THAT(reader.Read(0, -1, out, 2), refused);
  EXPECT_THAT(reader.Read(0, 9, out, 0), refused);
  EXPECT_THAT(reader.Read(0, INT64_MAX, out, INT64_MAX), refused);
  EXPECT_THAT(reader.Read(3, 0, out, 0), refused);
  ASSERT_OK_AND_ASSIGN(auto writer,
                       SafetensorsWriter::Create(PosixFileSystem(), path, Entries(), {}));
  EXPECT_THAT(writer->WriteAt(2, 0, "abcdef"), refused);
  EXPECT_THAT(writer->WriteAt(7, 0, ""), refused);
}

TEST(SafetensorsFileTest, AFileThatShrinksIsDataLoss) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.safetensors");
  ASSERT_OK(Write(PosixFileSystem(), path));
  ASSERT_OK_AND_ASSIGN(const auto reader, SafetensorsReader::Open(PosixFileSystem(), path));
  ASSERT_EQ(truncate(path.c_str(), 16), 0);
  char out[8];
  EXPECT_THAT(reader.Read(0, 0, out, 8), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path)));
  EXPECT_THAT(SafetensorsReader::Open(PosixFileSystem(), path).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path)));
}

TEST(SafetensorsFileTest, CommitWantsEveryByte) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.safetensors");
  {
    ASSERT_OK_AND_ASSIGN(auto writer,
                         SafetensorsWriter::Create(PosixFileSystem(), path, Entries(), {}));
    ASSERT_OK(writer->WriteAt(0, 0, "01234567"));
    EXPECT_THAT(writer->Commit(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                           HasSubstr("8 bytes were written, expected 13")));
    EXPECT_EQ(FilesIn(directory), 1u);
  }
  EXPECT_EQ(FilesIn(directory), 0u);
}

TEST(SafetensorsFileTest, AnInterruptedFileLeavesTheOldOneAndNothingElse) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.safetensors");
  ASSERT_OK(WriteWholeFile(PosixFileSystem(), path, "old"));
  FaultyFileSystem files(PosixFileSystem());
  bool struck = true;
  for (int at = 0; struck; ++at) {
    SCOPED_TRACE(at);
    ASSERT_LT(at, 100);
    files.FailAt(at, FaultyFileSystem::Fault::kShortWrite);
    const absl::Status status = Write(&files, path);
    struck = files.struck();
    EXPECT_EQ(FilesIn(directory), 1u);
    if (struck) {
      EXPECT_FALSE(status.ok());
      const std::string content = ReadWholeFile(PosixFileSystem(), path, 1000).value();
      // Only the sync of the directory comes after the new name.
      if (content != "old") {
        EXPECT_OK(SafetensorsReader::Open(PosixFileSystem(), path));
      }
    } else {
      EXPECT_OK(status);
      EXPECT_GT(at, 6);
    }
  }
  EXPECT_OK(SafetensorsReader::Open(PosixFileSystem(), path));
}

TEST(SafetensorsFileTest, WhatAKilledProcessLeftIsReplaced) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("a.safetensors");
  FaultyFileSystem files(PosixFileSystem());
  files.FailAt(2, FaultyFileSystem::Fault::kCrash);
  ASSERT_FALSE(Write(&files, path).ok());
  ASSERT_EQ(FilesIn(directory), 1u);
  EXPECT_OK(Write(PosixFileSystem(), path));
  EXPECT_EQ(FilesIn(directory), 1u);
}

}  // namespace
}  // namespace shardstep
