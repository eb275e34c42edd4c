#include "shardstep/client/cli/server_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

// A child of this process that holds the lock of `dir`, with `text` in it ("" = its own number),
// until a signal ends it.
class FakeServer {
 public:
  FakeServer(const std::string& dir, const std::string& text, bool holds_lock = true,
             bool ends_at_sigterm = true) {
    int ready[2];
    if (pipe(ready) != 0) std::abort();
    const std::string path = dir + "/LOCK";
    pid_ = fork();
    if (pid_ == 0) {
      if (!ends_at_sigterm) std::signal(SIGTERM, SIG_IGN);
      const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
      if (holds_lock && flock(file, LOCK_EX | LOCK_NB) != 0) _exit(1);
      const std::string written = text.empty() ? absl::StrCat(getpid(), "\n") : text;
      if (write(file, written.data(), written.size()) < 0 || write(ready[1], "x", 1) < 0) _exit(1);
      for (;;) pause();
    }
    close(ready[1]);
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
  }
  ~FakeServer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const { return pid_; }
  bool Runs() const { return waitpid(pid_, nullptr, WNOHANG) == 0; }

 private:
  pid_t pid_;
};

std::string MakeDirectory(const std::string& name) {
  const std::string dir = ::testing::TempDir() + "/" + name;
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  return dir;
}

TEST(ServerLockTest, NothingRunsWhereThereIsNoLock) {
  EXPECT_THAT(RunningServer("no/such/folder"), IsOkAndHolds(std::nullopt));
  ASSERT_OK_AND_ASSIGN(const auto server, StoppingServer::Stop(MakeDirectory("empty")));
  EXPECT_FALSE(server.has_value());
}

TEST(ServerLockTest, StopsTheServerThatHoldsTheLock) {
  const std::string dir = MakeDirectory("held");
  const FakeServer fake(dir, "");
  EXPECT_THAT(RunningServer(dir), IsOkAndHolds(fake.pid()));
  ASSERT_OK_AND_ASSIGN(const auto server, StoppingServer::Stop(dir));
  ASSERT_TRUE(server.has_value());
  EXPECT_EQ(server->pid(), fake.pid());
  EXPECT_TRUE(server->WaitFor(absl::Seconds(30)));
  int status = 0;
  ASSERT_EQ(waitpid(fake.pid(), &status, 0), fake.pid());
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  EXPECT_THAT(RunningServer(dir), IsOkAndHolds(std::nullopt));
}

TEST(ServerLockTest, LeavesAProcessAloneWhoseNumberAnUnheldLockBears) {
  const std::string dir = MakeDirectory("stale");
  const FakeServer bystander(dir, "", /*holds_lock=*/false);
  EXPECT_THAT(RunningServer(dir), IsOkAndHolds(std::nullopt));
  ASSERT_OK_AND_ASSIGN(const auto server, StoppingServer::Stop(dir));
  EXPECT_FALSE(server.has_value());
  EXPECT_TRUE(bystander.Runs());
}

TEST(ServerLockTest, RefusesAHeldLockWithoutNumber) {
  const std::string dir = MakeDirectory("garbage");
  const FakeServer fake(dir, "garbage");
  EXPECT_THAT(RunningServer(dir),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(dir + "/LOCK")));
  EXPECT_THAT(StoppingServer::Stop(dir).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("LOCK")));
  EXPECT_TRUE(fake.Runs());
}

TEST(ServerLockTest, SaysThatAProcessStillRuns) {
  const std::string dir = MakeDirectory("slow");
  const FakeServer fake(dir, "", /*holds_lock=*/true, /*ends_at_sigterm=*/false);
  ASSERT_OK_AND_ASSIGN(const auto server, StoppingServer::Stop(dir));
  ASSERT_TRUE(server.has_value());
  EXPECT_FALSE(server->WaitFor(absl::Milliseconds(10)));
}

}  // namespace
}  // namespace shardstep
