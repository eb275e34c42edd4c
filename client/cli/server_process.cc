#include "shardstep/client/cli/server_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <deque>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

constexpr size_t kTailLines = 10;

// Declared so by POSIX, and by no header.
extern "C" char** environ;

// posix_spawn's settings: its own session, no input, output into the log, signals as a program
// finds them.
class SpawnSettings {
 public:
  explicit SpawnSettings(const std::string& log) {
    posix_spawn_file_actions_init(&files_);
    posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files_, STDOUT_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&files_, STDOUT_FILENO, STDERR_FILENO);
    posix_spawnattr_init(&attributes_);
    posix_spawnattr_setflags(&attributes_,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes_, &signals);
    // A shell starts what runs in the background with these ignored.
    for (const int signal : {SIGINT, SIGQUIT, SIGTERM}) sigaddset(&signals, signal);
    posix_spawnattr_setsigdefault(&attributes_, &signals);
  }
  ~SpawnSettings() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&files_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  const posix_spawn_file_actions_t* files() const { return &files_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
};

}  // namespace

absl::StatusOr<std::string> FindServerBinary() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path folder = self.parent_path();
  const std::string beside = folder / "shardstep-server";
  const std::string built = (folder / "../../server/shardstep-server").lexically_normal();
  for (const std::string& candidate : {beside, built}) {
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return absl::NotFoundError(absl::StrCat("shardstep-server is neither \"", beside, "\" nor \"",
                                          built, "\"; pass --server-binary"));
}

absl::StatusOr<ServerProcess> ServerProcess::Start(const std::vector<std::string>& arguments,
                                                   const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::error_code none_yet;
  const auto log_size = std::filesystem::file_size(log, none_yet);
  const SpawnSettings settings(log);
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, argv[0], settings.files(), settings.attributes(), argv.data(), environ);
  if (error != 0) {
    return absl::ErrnoToStatus(
        error, absl::StrCat("\"", arguments[0], "\" with log \"", log, "\" cannot be started"));
  }
  return ServerProcess(pid, log, none_yet ? 0 : static_cast<long>(log_size));
}

const std::optional<std::string>& ServerProcess::Ended() {
  Reap(WNOHANG);
  return ended_;
}

void ServerProcess::Signal(int signal) {
  if (!Ended()) kill(pid_, signal);
}

void ServerProcess::Join() { Reap(0); }

void ServerProcess::Reap(int options) {
  if (ended_) return;
  int status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(pid_, &status, options);
  } while (reaped < 0 && errno == EINTR);
  if (reaped == 0) return;
  if (reaped < 0) {
    ended_ = "not a child of this process any more";
  } else if (WIFSIGNALED(status)) {
    ended_ = absl::StrCat("killed by signal ", WTERMSIG(status));
  } else {
    ended_ = absl::StrCat("exit status ", WEXITSTATUS(status));
  }
}

std::string ServerProcess::LogTail() const {
  std::ifstream file(log_);
  file.seekg(log_begin_);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(std::move(line));
    if (lines.size() > kTailLines) lines.pop_front();
  }
  std::string tail;
  for (const std::string& line : lines) absl::StrAppend(&tail, "\n    ", line);
  return tail;
}

}  // namespace shardstep
