#include "shardstep/server/write_ahead_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/simulated_file_system.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/server/small_base.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kDirectory[] = "/wal/m";

class WriteAheadLogTest : public ::testing::Test {
 protected:
  WriteAheadLogTest() {
    options_.optimizer = "m";
    options_.numeric_fingerprint = 0xabc;
    options_.segment_bytes = 600;
  }

  // A log as after a start, with what it found, by version.
  struct Started {
    std::unique_ptr<WriteAheadLog> log;
    std::optional<Base> base;
    std::vector<uint64_t> versions;
    std::map<uint64_t, std::string> payloads;
    absl::Status status;
  };
  Started Start() {
    Started started;
    started.status = [&]() -> absl::Status {
      SHARDSTEP_ASSIGN_OR_RETURN(started.log, WriteAheadLog::Open(&files_, kDirectory, options_));
      SHARDSTEP_ASSIGN_OR_RETURN(started.base, started.log->ReadBase());
      while (true) {
        SHARDSTEP_ASSIGN_OR_RETURN(const auto record, started.log->ReadNext());
        if (!record.has_value()) return absl::OkStatus();
        const bool prepare = record->message.has_prepare();
        const uint64_t version = prepare ? record->message.prepare().request().version()
                                         : record->message.decision().commit().version();
        started.versions.push_back(version);
        for (const at::Tensor& tensor : record->payload) {
          started.payloads[version].append(static_cast<const char*>(tensor.data_ptr()),
                                           tensor.nbytes());
        }
      }
    }();
    return started;
  }

  static absl::StatusOr<uint64_t> Prepare(WriteAheadLog* log, uint64_t version,
                                          const std::string& payload,
                                          const std::string& staged = {}) {
    v1::LogRecord record;
    v1::LoggedPrepare* const prepare = record.mutable_prepare();
    prepare->mutable_request()->set_version(version);
    prepare->set_staged_file(staged);
    if (payload.empty()) return log->Append(record, {});
    prepare->add_gradients()->set_bytes(1);
    prepare->add_gradients()->set_bytes(payload.size() - 1);
    return log->Append(record, {payload});
  }
  static absl::StatusOr<uint64_t> Decide(WriteAheadLog* log, uint64_t version) {
    v1::LogRecord record;
    record.mutable_decision()->mutable_commit()->set_version(version);
    return log->Append(record, {});
  }

  std::vector<std::string> Names(const std::string& kind) {
    const std::vector<DirectoryEntry> entries = files_.List(kDirectory).value();
    std::vector<std::string> names;
    for (const DirectoryEntry& entry : entries) {
      if (absl::StartsWith(entry.name, kind)) names.push_back(entry.name);
    }
    return names;
  }
  static std::string Path(const std::string& name) { return JoinPath(kDirectory, name); }
  void Break(const std::string& name, size_t at) {
    std::string content = ReadWholeFile(&files_, Path(name), 1 << 20).value();
    content.at(at) ^= 1;
    ASSERT_OK(files_.RemoveFile(Path(name)));
    ASSERT_OK(WriteWholeFile(&files_, Path(name), content));
  }
  // Versions 1 to 9, in segments of three.
  void WriteNine() {
    const Started started = Start();
    ASSERT_OK(started.status);
    for (uint64_t version = 1; version <= 9; ++version) {
      ASSERT_OK(Prepare(started.log.get(), version, std::string(200, '0' + version)));
    }
    ASSERT_OK(started.log->Sync());
  }

  SimulatedFileSystem files_;
  WriteAheadLog::Options options_;
};

TEST_F(WriteAheadLogTest, WhatWasAppendedIsFoundInOrder) {
  {
    const Started started = Start();
    ASSERT_OK(started.status);
    EXPECT_FALSE(started.base.has_value());
    EXPECT_THAT(started.versions, IsEmpty());
    EXPECT_EQ(started.log->last_lsn(), 0u);
    EXPECT_THAT(Prepare(started.log.get(), 1, "gradient"), IsOkAndHolds(2u))
        << "1 begins a segment";
    EXPECT_THAT(Decide(started.log.get(), 1), IsOkAndHolds(3u));
    EXPECT_EQ(started.log->last_lsn(), 3u);
    EXPECT_GT(started.log->bytes_behind_base(), 0);
  }
  files_.Restart();
  Started started = Start();
  ASSERT_OK(started.status);
  EXPECT_THAT(started.versions, ElementsAre(1, 1));
  EXPECT_EQ(started.payloads[1], "gradient");
  EXPECT_EQ(started.log->last_lsn(), 3u);
  EXPECT_THAT(Names("log"), ElementsAre("log-00000000000000000001"));
  EXPECT_THAT(Prepare(started.log.get(), 2, ""), IsOkAndHolds(5u));
  EXPECT_THAT(Names("log"), ElementsAre("log-00000000000000000001", "log-00000000000000000004"));
  EXPECT_THAT(Start().versions, ElementsAre(1, 1, 2));
}

TEST_F(WriteAheadLogTest, WhatRecoveryFoundCountsFromThenOn) {
  {
    const Started started = Start();
    ASSERT_OK(Prepare(started.log.get(), 1, "gradient"));
  }
  // The process died, and what it had not synced was found; then the machine dies.
  files_.Restart();
  EXPECT_THAT(Start().versions, ElementsAre(1));
  files_.Crash([] { return uint64_t{2}; });
  EXPECT_THAT(Start().versions, ElementsAre(1));
}

TEST_F(WriteAheadLogTest, ABaseThatRecoveryFoundCountsFromThenOn) {
  bool written = false;
  bool found_early = false;
  for (int64_t at = 0; !written; ++at) {
    SCOPED_TRACE(absl::StrCat("dies before change ", at));
    {
      const Started started = Start();
      ASSERT_OK(Prepare(started.log.get(), 1, "gradient"));
      v1::BaseHeader header = SmallBaseHeader(started.log->last_lsn());
      header.set_numeric_fingerprint(options_.numeric_fingerprint);
      files_.FreezeAt(at);
      written = started.log->WriteBase(header, SmallState(1)).ok();
    }
    files_.Restart();
    const bool first = Start().base.has_value();
    EXPECT_THAT(Names(""), Each(Not(EndsWith(".tmp"))));
    // No name that was not synced survives.
    files_.Crash([] { return uint64_t{0}; });
    EXPECT_EQ(Start().base.has_value(), first);
    found_early = found_early || (first && !written);
    ASSERT_OK(RemoveTree(&files_, "/wal"));
  }
  EXPECT_TRUE(found_early) << "between its renaming and the sync of the directory";
}

TEST_F(WriteAheadLogTest, AFullSegmentIsFollowedByAnother) {
  WriteNine();
  EXPECT_THAT(Names("log"), ElementsAre("log-00000000000000000001", "log-00000000000000000005",
                                        "log-00000000000000000009"));
  Started started = Start();
  ASSERT_OK(started.status);
  EXPECT_THAT(started.versions, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(started.payloads[5], std::string(200, '5'));
}

TEST_F(WriteAheadLogTest, ATornTailIsCutAndABrokenMiddleIsNot) {
  WriteNine();
  const std::string last = Names("log").back();
  Break(last, 600);
  EXPECT_THAT(Start().versions, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  Break(last, 30);
  EXPECT_THAT(Start().versions, ElementsAre(1, 2, 3, 4, 5, 6))
      << "its own start is broken: nothing in it was ever synced";
  EXPECT_THAT(Names("log"), Not(Contains(last)));
  const std::string middle = Names("log").back();
  {
    const Started started = Start();
    ASSERT_OK(Prepare(started.log.get(), 7, "again"));
  }
  EXPECT_THAT(Start().versions, ElementsAre(1, 2, 3, 4, 5, 6, 7));
  Break(middle, 600);
  const Started broken = Start();
  EXPECT_THAT(broken.status, StatusIs(absl::StatusCode::kDataLoss,
                                      AllOf(HasSubstr(middle), HasSubstr(": byte "))));
  EXPECT_THAT(broken.versions, ElementsAre(1, 2, 3, 4, 5));
}

TEST_F(WriteAheadLogTest, AMissingSegmentIsFound) {
  for (const size_t missing : {0, 1}) {
    SCOPED_TRACE(missing);
    WriteNine();
    ASSERT_OK(files_.RemoveFile(Path(Names("log")[missing])));
    EXPECT_THAT(Start().status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("log-")));
    ASSERT_OK(RemoveTree(&files_, kDirectory));
  }
}

TEST_F(WriteAheadLogTest, ABaseReplacesAllRecordsThatItDoesNotNameAsPending) {
  WriteNine();
  const Started started = Start();
  v1::BaseHeader header = SmallBaseHeader(9);
  header.set_numeric_fingerprint(options_.numeric_fingerprint);
  header.add_pending_lsns(7);
  ASSERT_OK(started.log->WriteBase(header, SmallState(1)));
  EXPECT_EQ(Names("log").size(), 3u) << "until it is truncated";
  const int64_t before = started.log->bytes_behind_base();
  ASSERT_OK(started.log->Truncate(header));
  EXPECT_THAT(Names("log"), ElementsAre("log-00000000000000000005", "log-00000000000000000009"));
  EXPECT_LT(started.log->bytes_behind_base(), before);
  {
    const Started again = Start();
    ASSERT_OK(again.status);
    EXPECT_EQ(again.base->header.lsn(), 9u);
    // Numbers 5 and 9 begin segments, so 7 is version 5, and 10 is version 7.
    EXPECT_THAT(again.versions, ElementsAre(5, 7, 8, 9));
  }
  ASSERT_OK(Prepare(started.log.get(), 10, "g"));
  header.set_lsn(started.log->last_lsn());
  header.clear_pending_lsns();
  ASSERT_OK(started.log->WriteBase(header, SmallState(2)));
  ASSERT_OK(started.log->Truncate(header));
  EXPECT_EQ(Names("base").size(), 1u);
  EXPECT_EQ(Names("log").size(), 1u);
  const Started last = Start();
  EXPECT_EQ(last.base->state.shards[0].value[0].item<float>(), 2);
  EXPECT_THAT(last.versions, IsEmpty());
}

// What was in the base and nowhere else any more is not numbered again.
TEST_F(WriteAheadLogTest, ABaseThatIsAheadOfTheRecordsIsGoneOnBehind) {
  {
    const Started started = Start();
    ASSERT_OK(Prepare(started.log.get(), 1, "g"));
    ASSERT_OK(started.log->Sync());
    ASSERT_OK(Prepare(started.log.get(), 2, "lost"));
    v1::BaseHeader header = SmallBaseHeader(started.log->last_lsn());
    header.set_numeric_fingerprint(options_.numeric_fingerprint);
    header.add_pending_lsns(2);
    ASSERT_OK(started.log->WriteBase(header, SmallState(1)));
  }
  files_.Crash([] { return uint64_t{2}; });
  const Started started = Start();
  EXPECT_THAT(started.versions, ElementsAre(1));
  EXPECT_EQ(started.log->last_lsn(), 3u);
  EXPECT_THAT(Prepare(started.log.get(), 3, "g"), IsOkAndHolds(5u));
  EXPECT_THAT(Start().versions, ElementsAre(1, 3));
}

TEST_F(WriteAheadLogTest, StagedFilesLiveAsLongAsARecordMayNameThem) {
  std::string kept;
  {
    const Started started = Start();
    ASSERT_OK_AND_ASSIGN(kept, started.log->WriteStaged(SmallBaseHeader(0), SmallState(3)));
    ASSERT_OK_AND_ASSIGN(const std::string unnamed,
                         started.log->WriteStaged(SmallBaseHeader(0), SmallState(4)));
    EXPECT_NE(kept, unnamed);
    ASSERT_OK(Prepare(started.log.get(), 1, "", kept));
    EXPECT_GT(started.log->bytes_behind_base(), 500);
  }
  const Started started = Start();
  EXPECT_THAT(Names("staged"), ElementsAre(kept)) << "no record named the other";
  ASSERT_OK_AND_ASSIGN(const Base base, started.log->ReadStaged(kept));
  EXPECT_EQ(base.state.shards[2].value[0].item<double>(), 3);
  EXPECT_THAT(started.log->ReadStaged("../other"), StatusIs(absl::StatusCode::kDataLoss));

  v1::BaseHeader header = SmallBaseHeader(started.log->last_lsn());
  header.add_pending_lsns(2);
  ASSERT_OK(started.log->Truncate(header));
  EXPECT_THAT(Names("staged"), ElementsAre(kept)) << "its record is pending";
  ASSERT_OK_AND_ASSIGN(const std::string late,
                       started.log->WriteStaged(SmallBaseHeader(0), SmallState(5)));
  header.clear_pending_lsns();
  ASSERT_OK(started.log->Truncate(header));
  EXPECT_THAT(Names("staged"), ElementsAre(late)) << "its record is still to come";
  ASSERT_OK(Prepare(started.log.get(), 2, "", late));
  ASSERT_OK(started.log->RemoveStaged(late));
  EXPECT_THAT(Names("staged"), IsEmpty());
  EXPECT_THAT(Start().log->WriteStaged(SmallBaseHeader(0), SmallState(6)), IsOkAndHolds(Not(late)))
      << "a record still has that name";
}

TEST_F(WriteAheadLogTest, AnotherMachinesRecordsAreRefused) {
  WriteNine();
  options_.numeric_fingerprint = 0xdef;
  EXPECT_THAT(Start().status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("00000abc"), HasSubstr("00000def"),
                             HasSubstr("--numerics=portable"), HasSubstr("log-0"))));
  ASSERT_OK(RemoveTree(&files_, kDirectory));
  {
    const Started started = Start();
    v1::BaseHeader header = SmallBaseHeader(4);
    header.set_numeric_fingerprint(0xabc);
    ASSERT_OK(started.log->WriteBase(header, SmallState(1)));
  }
  EXPECT_THAT(Start().status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("00000abc"), HasSubstr("00000def"), HasSubstr("base-0"))));
}

TEST_F(WriteAheadLogTest, AFullDiskRefusesGradientsAndTakesDecisions) {
  Started started = Start();
  WriteAheadLog* const log = started.log.get();
  ASSERT_OK(Prepare(log, 1, std::string(700, 'a')));
  files_.SetLimit(0);
  const auto full = StatusIs(absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Prepare(log, 2, "b"), full);
  EXPECT_OK(Decide(log, 1)) << "in the segment that is too long already";
  EXPECT_THAT(Prepare(log, 2, "b"), full);
  EXPECT_OK(Decide(log, 3));
  EXPECT_OK(log->Sync());
  files_.SetLimit(files_.used_bytes() + 500);
  EXPECT_THAT(log->WriteBase(SmallBaseHeader(2), SmallState(1)), full);
  EXPECT_THAT(log->WriteStaged(SmallBaseHeader(2), SmallState(1)), full);
  EXPECT_THAT(Names(""), ElementsAre("log-00000000000000000001"));
  files_.SetLimit(-1);
  EXPECT_OK(Prepare(log, 4, "c"));
  EXPECT_EQ(Names("log").size(), 2u);
  ASSERT_OK(log->Sync());
  files_.Crash([] { return uint64_t{2}; });
  started = Start();
  ASSERT_OK(started.status);
  EXPECT_THAT(started.versions, ElementsAre(1, 1, 3, 4));
}

// Were the start of a segment found that was given up, what the segment before it got would not
// count.
TEST_F(WriteAheadLogTest, ASegmentThatWasGivenUpIsNeverFound) {
  for (int64_t at = 0; at < 12; ++at) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
      SCOPED_TRACE(absl::StrCat("change ", at, " fails, crash ", seed));
      const Started started = Start();
      ASSERT_OK(Prepare(started.log.get(), 1, std::string(700, 'a')));
      files_.FailChange(at, absl::ResourceExhaustedError("full"));
      const bool appended = Decide(started.log.get(), 2).ok();
      const bool synced = appended && started.log->Sync().ok();
      std::mt19937_64 random(seed);
      files_.Crash(random);
      files_.FailChange(1000, absl::OkStatus());
      const Started again = Start();
      ASSERT_OK(again.status);
      EXPECT_TRUE(!synced || again.versions == std::vector<uint64_t>({1, 2}));
      ASSERT_OK(RemoveTree(&files_, kDirectory));
    }
  }
}

TEST_F(WriteAheadLogTest, AnErrorOfASyncIsForGoodWhateverItSays) {
  const Started started = Start();
  ASSERT_OK(Prepare(started.log.get(), 1, std::string(700, 'a')));
  files_.SetSyncError(absl::ResourceExhaustedError("full"));
  EXPECT_THAT(started.log->Sync(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(Prepare(started.log.get(), 2, "b"), StatusIs(absl::StatusCode::kDataLoss))
      << "the next segment would stand for what this one has";
}

TEST_F(WriteAheadLogTest, ALogThatNobodyReadIsGoneOnBehind) {
  WriteNine();
  ASSERT_OK_AND_ASSIGN(const auto log, WriteAheadLog::Open(&files_, kDirectory, options_));
  ASSERT_OK_AND_ASSIGN(const std::string staged,
                       log->WriteStaged(SmallBaseHeader(0), SmallState(1)));
  EXPECT_THAT(Prepare(log.get(), 10, "", staged), IsOkAndHolds(14u));
  const Started started = Start();
  ASSERT_OK(started.status);
  EXPECT_THAT(started.versions, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_OK(started.log->ReadStaged(staged).status());
}

TEST_F(WriteAheadLogTest, BasesAndStagedFilesAreWrittenBesideAppends) {
  const TemporaryDirectory directory;
  ASSERT_OK_AND_ASSIGN(const auto log,
                       WriteAheadLog::Open(PosixFileSystem(), directory.File("m"), options_));
  ASSERT_OK(Prepare(log.get(), 1, "g"));
  v1::BaseHeader header = SmallBaseHeader(log->last_lsn());
  std::thread bases([&] {
    for (int i = 0; i < 20; ++i) EXPECT_OK(log->WriteBase(header, SmallState(1)));
  });
  std::thread staged([&] {
    for (int i = 0; i < 20; ++i) {
      EXPECT_OK(log->WriteStaged(SmallBaseHeader(0), SmallState(1)).status());
    }
  });
  for (int i = 0; i < 20; ++i) {
    EXPECT_OK(Prepare(log.get(), 2, std::string(300, 'g')));
    EXPECT_OK(log->Sync());
    EXPECT_OK(log->Truncate(header));
  }
  bases.join();
  staged.join();
}

TEST_F(WriteAheadLogTest, DestroyRemovesAllAtOneInstant) {
  for (int64_t at = 0;; ++at) {
    SCOPED_TRACE(absl::StrCat("dies before change ", at));
    WriteNine();
    const Started started = Start();
    files_.FreezeAt(at);
    const absl::Status destroyed = started.log->Destroy();
    EXPECT_TRUE(!destroyed.ok() || started.log->ReadNext().ok());
    files_.Crash([at] { return static_cast<uint64_t>(at) * 7919; });
    if (destroyed.ok()) {
      EXPECT_GT(at, 4);
      EXPECT_THAT(files_.Exists(kDirectory), IsOkAndHolds(false));
      break;
    }
    if (files_.Exists(kDirectory).value()) {
      EXPECT_EQ(Start().versions.size(), 9u);
    }
    ASSERT_OK(RemoveTree(&files_, "/wal"));
  }
}

}  // namespace
}  // namespace shardstep
