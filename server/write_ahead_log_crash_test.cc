// A write-ahead log on a disk that forgets what was not synced: whatever a process was doing when
// it or its machine died, the next one finds a beginning of what was appended, in order, with all
// that was synced.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/simulated_file_system.h"
#include "shardstep/server/small_base.h"
#include "shardstep/server/write_ahead_log.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

// One log through the lives of many processes, and what it must have.
class Lives {
 public:
  explicit Lives(uint64_t seed) : random_(seed) {}

  SimulatedFileSystem* files() { return &files_; }

  // Begins a life: reads the log and compares.
  void Start() {
    files_.SetLimit(-1);
    files_.FailChange(1'000'000, absl::OkStatus());
    WriteAheadLog::Options options;
    options.optimizer = "m";
    options.segment_bytes = 700;
    auto opened = WriteAheadLog::Open(&files_, "/wal/m", options);
    ASSERT_OK(opened.status());
    log_ = *std::move(opened);
    ASSERT_OK_AND_ASSIGN(const std::optional<Base> base, log_->ReadBase());
    const uint64_t base_lsn = base.has_value() ? base->header.lsn() : 0;
    ASSERT_GE(base_lsn, base_lsn_) << "a base is gone";
    ASSERT_TRUE(base_lsn == base_lsn_ || begun_bases_.count(base_lsn) > 0) << "nobody wrote it";
    if (base.has_value()) {
      pending_ = {base->header.pending_lsns().begin(), base->header.pending_lsns().end()};
    }
    base_lsn_ = base_lsn;
    begun_bases_.clear();

    std::vector<Record> found;
    while (true) {
      ASSERT_OK_AND_ASSIGN(const auto record, log_->ReadNext());
      if (!record.has_value()) break;
      found.push_back({record->lsn, record->message.SerializeAsString()});
      for (const at::Tensor& tensor : record->payload) {
        found.back().content.append(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes());
      }
      const std::string& staged = record->message.prepare().staged_file();
      if (!staged.empty() && removed_.count(staged) == 0) {
        EXPECT_OK(log_->ReadStaged(staged).status()) << record->lsn;
      }
    }
    records_.erase(std::remove_if(records_.begin(), records_.end(),
                                  [this](const Record& record) { return !Needed(record.lsn); }),
                   records_.end());
    ASSERT_LE(found.size(), records_.size()) << "something was invented";
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].lsn, records_[i].lsn);
      ASSERT_TRUE(found[i].content == records_[i].content) << found[i].lsn;
    }
    const bool lost = found.size() < records_.size();
    ASSERT_TRUE(!lost || (machine_died_ && records_[found.size()].lsn > synced_))
        << "record " << records_[found.size()].lsn << " was synced";
    records_ = std::move(found);
    synced_ = log_->last_lsn();
    ASSERT_GE(synced_, std::max(base_lsn_, records_.empty() ? 0 : records_.back().lsn));
  }

  // Works until something fails for good, or `operations` are done.
  absl::Status Work(int operations) {
    for (int i = 0; i < operations; ++i) {
      const absl::Status worked = WorkOnce();
      if (!worked.ok() && !absl::IsResourceExhausted(worked)) return worked;
    }
    return absl::OkStatus();
  }

  // Ends a life. The process: nothing that it wrote is lost.
  void Kill() {
    files_.Restart();
    machine_died_ = false;
  }
  void Crash(uint64_t seed) {
    std::mt19937_64 random(seed);
    files_.Crash(random);
    machine_died_ = true;
  }

 private:
  struct Record {
    uint64_t lsn = 0;
    std::string content;
  };

  bool Needed(uint64_t lsn) const { return lsn > base_lsn_ || pending_.count(lsn) > 0; }
  uint64_t Below(uint64_t limit) { return random_() % limit; }

  absl::Status WorkOnce() {
    // Full is the disk, or only what one change needs.
    if (Below(20) == 0) files_.SetLimit(files_.used_bytes() + Below(200'000));
    if (Below(10) == 0) files_.SetLimit(-1);
    if (Below(30) == 0) files_.FailChange(Below(5), absl::ResourceExhaustedError("full"));
    const uint64_t what = Below(20);
    if (what < 8) return Prepare({});
    if (what < 13) {
      v1::LogRecord record;
      record.mutable_decision()->mutable_commit()->set_version(random_());
      return Append(record, {});
    }
    if (what < 17) {
      SHARDSTEP_RETURN_IF_ERROR(log_->Sync());
      synced_ = log_->last_lsn();
      return absl::OkStatus();
    }
    if (what < 19) return WriteBase();
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string staged,
                               log_->WriteStaged(SmallBaseHeader(0), SmallState(1)));
    SHARDSTEP_RETURN_IF_ERROR(Prepare(staged));
    if (Below(2) == 0) return absl::OkStatus();
    removed_.insert(staged);
    SHARDSTEP_RETURN_IF_ERROR(log_->RemoveStaged(staged));
    synced_ = log_->last_lsn();
    return absl::OkStatus();
  }

  absl::Status Prepare(const std::string& staged) {
    const std::string payload(Below(3) == 0 ? 9000 : Below(300), static_cast<char>(random_()));
    v1::LogRecord record;
    record.mutable_prepare()->mutable_request()->set_version(random_());
    record.mutable_prepare()->set_staged_file(staged);
    record.mutable_prepare()->add_gradients()->set_bytes(payload.size());
    return Append(record, payload);
  }

  absl::Status Append(const v1::LogRecord& record, const std::string& payload) {
    SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t lsn, log_->Append(record, {payload}));
    records_.push_back({lsn, record.SerializeAsString() + payload});
    return absl::OkStatus();
  }

  absl::Status WriteBase() {
    v1::BaseHeader header = SmallBaseHeader(log_->last_lsn());
    if (header.lsn() == 0) return absl::OkStatus();
    for (const Record& record : records_) {
      if (Needed(record.lsn) && Below(10) == 0) header.add_pending_lsns(record.lsn);
    }
    begun_bases_.insert(header.lsn());
    SHARDSTEP_RETURN_IF_ERROR(log_->WriteBase(header, SmallState(1)));
    base_lsn_ = header.lsn();
    pending_ = {header.pending_lsns().begin(), header.pending_lsns().end()};
    return log_->Truncate(header);
  }

  SimulatedFileSystem files_;
  std::mt19937_64 random_;
  std::unique_ptr<WriteAheadLog> log_;

  // What must be found. A base whose writing was begun may be found as well.
  std::vector<Record> records_;
  uint64_t synced_ = 0;
  bool machine_died_ = false;
  uint64_t base_lsn_ = 0;
  std::set<uint64_t> pending_;
  std::set<uint64_t> begun_bases_;
  // Staged files that may be gone.
  std::set<std::string> removed_;
};

TEST(WriteAheadLogCrashTest, ADeathAtEveryChangeOfAHistory) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  bool whole = false;
  for (int64_t at = 0; !whole; ++at) {
    for (uint64_t crash = 0; crash < 8; ++crash) {
      SCOPED_TRACE(absl::StrCat("dies before change ", at, ", crash ", crash));
      Lives lives(seed);
      ASSERT_NO_FATAL_FAILURE(lives.Start());
      const int64_t before = lives.files()->changes();
      lives.files()->FreezeAt(at);
      lives.Work(40).IgnoreError();
      whole = lives.files()->changes() < before + at;
      lives.Crash(crash);
      ASSERT_NO_FATAL_FAILURE(lives.Start());
      lives.Work(4).IgnoreError();
      lives.Crash(crash + 1);
      ASSERT_NO_FATAL_FAILURE(lives.Start());
    }
  }
}

TEST(WriteAheadLogCrashTest, ManyLivesThatEndAtRandom) {
  const uint64_t first_seed = TestSeed();
  for (uint64_t seed = first_seed; seed < first_seed + 300; ++seed) {
    SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
    std::mt19937_64 random(seed);
    Lives lives(seed);
    for (int life = 0; life < 8; ++life) {
      SCOPED_TRACE(absl::StrCat("life ", life));
      // Recovery itself may be cut off as well; the next one does not miss what it did.
      if (random() % 4 == 0) {
        lives.files()->FreezeAt(random() % 4);
        WriteAheadLog::Options options;
        options.optimizer = "m";
        const auto log = WriteAheadLog::Open(lives.files(), "/wal/m", options);
        while (log.ok() && (*log)->ReadNext().value_or(std::nullopt).has_value()) continue;
        lives.Crash(random());
      }
      ASSERT_NO_FATAL_FAILURE(lives.Start());
      lives.files()->FreezeAt(random() % (random() % 2 == 0 ? 8 : 200));
      lives.Work(60).IgnoreError();
      if (random() % 3 == 0) {
        lives.Kill();
      } else {
        lives.Crash(random());
      }
    }
  }
}

}  // namespace
}  // namespace shardstep
