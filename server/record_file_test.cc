#include "shardstep/server/record_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/faulty_file_system.h"
#include "shardstep/checkpoint/simulated_file_system.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

constexpr char kPath[] = "/records";

v1::LogRecord Message(uint64_t version) {
  v1::LogRecord record;
  record.mutable_decision()->mutable_commit()->set_version(version);
  return record;
}

struct Written {
  uint64_t version = 0;
  std::string payload;
};

bool operator==(const Written& a, const Written& b) {
  return a.version == b.version && a.payload == b.payload;
}

// Reads whole records, their payloads in two parts.
struct Found {
  std::vector<Written> records;
  std::vector<ChainPosition> positions;
  // Where each ends.
  std::vector<size_t> ends;
  bool torn = false;
};

Found ReadAll(SimulatedFileSystem* files, const std::string& path = kPath) {
  RecordReader reader(files->OpenFile(path).value());
  Found found;
  while (true) {
    std::string payload;
    const auto record =
        reader
            .Next([&payload](const RecordReader::Record& record) -> std::vector<absl::Span<char>> {
              payload.resize(record.payload_bytes);
              const absl::Span<char> all = absl::MakeSpan(payload);
              return {all.subspan(0, all.size() / 3), all.subspan(all.size() / 3)};
            })
            .value();
    if (!record.has_value()) break;
    found.records.push_back({record->message.decision().commit().version(), payload});
    found.positions.push_back(record->position);
    found.ends.push_back(reader.offset());
  }
  found.torn = reader.torn();
  return found;
}

class RecordFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<RecordWriter> Create(const std::string& path = kPath, ChainPosition after = {}) {
    return std::make_unique<RecordWriter>(files_.CreateFile(path).value(), after);
  }

  absl::Status Append(RecordWriter* writer, const Written& record, int64_t spare = 0) {
    const absl::string_view payload = record.payload;
    const size_t half = payload.size() / 2;
    return writer->Append(Message(record.version), {payload.substr(0, half), payload.substr(half)},
                          spare);
  }

  // A file of three records.
  void WriteThree() {
    const auto writer = Create();
    for (const Written& record : three_) ASSERT_OK(Append(writer.get(), record));
  }

  void Replace(const std::string& content) {
    ASSERT_OK(files_.RemoveFile(kPath));
    ASSERT_OK(WriteWholeFile(&files_, kPath, content));
  }

  std::string Content() { return ReadWholeFile(&files_, kPath, 1 << 30).value(); }

  SimulatedFileSystem files_;
  const std::vector<Written> three_ = {{1, ""}, {2, std::string(100, 'g')}, {3, "abc"}};
};

TEST_F(RecordFileTest, WhatWasWrittenIsReadInOrderAndNumbered) {
  const auto writer = Create(kPath, {41, 0x1234});
  // More than a reader takes at once.
  const std::vector<Written> records = {{7, ""}, {8, std::string(1'000'001, 'x')}, {9, "y"}};
  for (const Written& record : records) ASSERT_OK(Append(writer.get(), record));
  const Found found = ReadAll(&files_);
  EXPECT_TRUE(found.records == records);
  EXPECT_FALSE(found.torn);
  EXPECT_EQ(found.positions[0].lsn, 42u);
  EXPECT_EQ(found.positions[2].lsn, 44u);
  EXPECT_EQ(writer->last().lsn, 44u);
  EXPECT_EQ(writer->last().crc32c, found.positions[2].crc32c);
  EXPECT_EQ(writer->bytes(), static_cast<int64_t>(found.ends[2]));
  RecordReader reader(files_.OpenFile(kPath).value());
  EXPECT_EQ(reader.Next().value()->previous_crc32c, 0x1234u);
}

TEST_F(RecordFileTest, APayloadThatIsNotWantedIsCheckedAllTheSame) {
  WriteThree();
  const auto count = [&] {
    RecordReader reader(files_.OpenFile(kPath).value());
    int records = 0;
    while (reader.Next().value().has_value()) ++records;
    return records;
  };
  EXPECT_EQ(count(), 3);
  std::string content = Content();
  content[content.find('g') + 5] ^= 1;
  Replace(content);
  EXPECT_EQ(count(), 1);
}

TEST_F(RecordFileTest, OfEveryPrefixTheWholeRecordsAreRead) {
  WriteThree();
  const std::string content = Content();
  const std::vector<size_t> ends = ReadAll(&files_).ends;
  for (size_t size = 0; size < content.size(); ++size) {
    SCOPED_TRACE(absl::StrCat("the first ", size, " bytes of ", content.size()));
    Replace(content.substr(0, size));
    const Found found = ReadAll(&files_);
    const size_t whole = std::upper_bound(ends.begin(), ends.end(), size) - ends.begin();
    EXPECT_TRUE(found.records == std::vector<Written>(three_.begin(), three_.begin() + whole));
    EXPECT_EQ(found.torn, size != 0 && std::count(ends.begin(), ends.end(), size) == 0);
  }
}

TEST_F(RecordFileTest, ReadingEndsBeforeEveryBrokenByte) {
  WriteThree();
  const std::string content = Content();
  const std::vector<size_t> ends = ReadAll(&files_).ends;
  for (size_t at = 0; at < content.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      SCOPED_TRACE(absl::StrCat("byte ", at, " xor ", flip));
      std::string broken = content;
      broken[at] ^= flip;
      Replace(broken);
      const Found found = ReadAll(&files_);
      const size_t whole = std::upper_bound(ends.begin(), ends.end(), at) - ends.begin();
      EXPECT_TRUE(found.records == std::vector<Written>(three_.begin(), three_.begin() + whole));
      EXPECT_TRUE(found.torn);
    }
  }
}

TEST_F(RecordFileTest, SizesAreNotTrusted) {
  WriteThree();
  const std::string content = Content();
  // The message's, the payload's, both.
  for (const auto& [at, bytes] : std::vector<std::pair<int, int>>{{4, 4}, {8, 8}, {4, 12}}) {
    SCOPED_TRACE(absl::StrCat("bytes ", at, " to ", at + bytes));
    std::string broken = content;
    std::fill_n(broken.begin() + at, bytes, '\xff');
    Replace(broken);
    FaultyFileSystem watched(&files_);
    RecordReader reader(watched.OpenFile(kPath).value());
    EXPECT_FALSE(reader.Next().value().has_value());
    EXPECT_TRUE(reader.torn());
    for (const FaultyFileSystem::ReadCall& read : watched.reads()) {
      EXPECT_LE(read.size, content.size()) << "memory for more than the file has";
    }
  }
}

TEST_F(RecordFileTest, ARecordOfAnotherFileDoesNotContinueThisOne) {
  WriteThree();
  const std::string content = Content();
  const std::vector<size_t> ends = ReadAll(&files_).ends;
  const auto other = Create("/other");
  ASSERT_OK(Append(other.get(), {1, "another"}));
  ASSERT_OK(Append(other.get(), {2, "history"}));
  const std::string others = ReadWholeFile(&files_, "/other", 1 << 20).value();
  Replace(content.substr(0, ends[0]) + others.substr(ReadAll(&files_, "/other").ends[0]));
  EXPECT_EQ(ReadAll(&files_).records.size(), 1u);
}

TEST_F(RecordFileTest, WhatARefusedRecordLeftIsWrittenOver) {
  const Written refused = {2, std::string(300'000, 'r')};
  const Written next = {3, "short"};
  for (int64_t at = 0;; ++at) {
    SCOPED_TRACE(absl::StrCat("change ", at));
    const auto writer = Create();
    ASSERT_OK(Append(writer.get(), {1, ""}));
    files_.FailChange(at, absl::InternalError("broken disk"));
    if (Append(writer.get(), refused).ok()) {
      EXPECT_GE(at, 5) << "reserve, message, payload in pieces, header";
      break;
    }
    EXPECT_EQ(ReadAll(&files_).records.size(), 1u);
    ASSERT_OK(Append(writer.get(), next));
    EXPECT_TRUE(ReadAll(&files_).records == (std::vector<Written>{{1, ""}, next}));
    ASSERT_OK(files_.RemoveFile(kPath));
  }
}

TEST_F(RecordFileTest, SpareRoomIsForRecordsWithoutPayload) {
  const auto writer = Create();
  ASSERT_OK(Append(writer.get(), {1, "payload"}, 200));
  EXPECT_EQ(files_.used_bytes(), writer->bytes() + 200);
  EXPECT_FALSE(ReadAll(&files_).torn) << "what is reserved is empty";
  files_.SetLimit(0);
  EXPECT_THAT(Append(writer.get(), {2, "p"}, 200), StatusIs(absl::StatusCode::kResourceExhausted));
  uint64_t appended = 0;
  while (Append(writer.get(), {2 + appended, ""}, 200).ok()) ++appended;
  EXPECT_GE(appended, 4u);
  EXPECT_THAT(Append(writer.get(), {2, ""}), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(ReadAll(&files_).records.size(), 1 + appended);
  files_.SetLimit(-1);
  EXPECT_OK(Append(writer.get(), {99, "payload"}, 200));
  EXPECT_EQ(ReadAll(&files_).records.back().version, 99u);
}

}  // namespace
}  // namespace shardstep
