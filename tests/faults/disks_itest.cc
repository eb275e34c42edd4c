// Disks that are full or may not be written, below a server with durability "wal". Each server's
// data directory is a small file system of its own, which only root can make.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/tests/faults/ledger_fleet.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

namespace fs = std::filesystem;

constexpr int kServer = 1;
constexpr int kRefused = 1;
constexpr int kFatal = 3;

// A file system of 16 MiB at a folder, for as long as this object lives.
class SmallDisk {
 public:
  explicit SmallDisk(std::string folder) : folder_(std::move(folder)) {
    fs::create_directories(folder_);
    mounted_ = mount("shardstep", folder_.c_str(), "tmpfs", 0, "size=16m") == 0;
  }
  ~SmallDisk() {
    // A process that was killed may not have let go of it yet.
    if (mounted_) umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool mounted() const { return mounted_; }
  // Leaves not a byte.
  void Fill() const {
    std::ofstream file(filler(), std::ios::binary);
    const std::string bytes(64 << 10, 'x');
    while (file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) {
    }
  }
  void Free() const { fs::remove(filler()); }
  // Fails while a file there is open for writing, unless `force`.
  bool MakeReadOnly(bool read_only) const {
    return mount("shardstep", folder_.c_str(), "tmpfs", MS_REMOUNT | (read_only ? MS_RDONLY : 0),
                 nullptr) == 0;
  }

 private:
  std::string filler() const { return folder_ + "/filler"; }

  const std::string folder_;
  bool mounted_ = false;
};

class DisksTest : public testing::Test {
 protected:
  DisksTest() : run_({}), disk_(run_.servers().data_directory(kServer)) {}
  void SetUp() override {
    if (!disk_.mounted()) {
      GTEST_SKIP() << "a tmpfs cannot be mounted here (" << std::strerror(errno)
                   << "): full and read-only disks are not tested";
    }
    ASSERT_OK(run_.Start());
  }

  LedgerFleet run_;
  SmallDisk disk_;  // goes before the servers: they are killed, whatever it does
};

TEST_F(DisksTest, AFullDiskHoldsStepsUpAndLosesNothing) {
  disk_.Fill();
  // Whatever room the log still had is used up: no step is acknowledged any more.
  uint64_t version = 0;
  for (uint64_t last = 1; last != version;) {
    last = std::exchange(version, run_.MaxAcknowledged());
    absl::SleepFor(absl::Seconds(1));
    version = run_.MaxAcknowledged();
  }
  EXPECT_THAT(run_.AwaitBeyond(version, absl::Seconds(3)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  disk_.Free();
  ASSERT_OK(run_.AwaitBeyond(version + 5));
  ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run_.End());
  EXPECT_TRUE(verdict.good()) << verdict.ToString();
}

TEST_F(DisksTest, AServerThatIsKilledOnAFullDiskComesBackWithAllThatWasAcknowledged) {
  disk_.Fill();
  run_.servers().Kill(kServer);
  const uint64_t version = run_.MaxAcknowledged();
  disk_.Free();
  ASSERT_OK(run_.servers().Restart(kServer));
  ASSERT_OK(run_.AwaitBeyond(version + 5));
  ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run_.End());
  EXPECT_TRUE(verdict.good()) << verdict.ToString();
}

TEST_F(DisksTest, AReadOnlyDirectoryIsRefusedAtTheStartInWords) {
  run_.servers().Kill(kServer);
  ASSERT_TRUE(disk_.MakeReadOnly(true)) << std::strerror(errno);
  const absl::Status refused = run_.servers().StartServer(kServer);
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kUnavailable,
                       testing::AllOf(testing::HasSubstr("Read-only file system"),
                                      testing::HasSubstr(run_.servers().data_directory(kServer)))));
  EXPECT_THAT(run_.servers().AwaitExit(kServer, absl::Seconds(10)), IsOkAndHolds(kRefused));
  ASSERT_TRUE(disk_.MakeReadOnly(false)) << std::strerror(errno);
  const uint64_t version = run_.MaxAcknowledged();
  ASSERT_OK(run_.servers().Restart(kServer));
  ASSERT_OK(run_.AwaitBeyond(version + 5));
  ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run_.End());
  EXPECT_TRUE(verdict.good()) << verdict.ToString();
}

}  // namespace
}  // namespace shardstep
