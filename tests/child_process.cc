#include "shardstep/tests/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/tests/eventually.h"

namespace shardstep {
namespace {

constexpr size_t kTailLines = 20;

// Runs in the child, between fork and exec: only what is safe there in a process with threads.
[[noreturn]] void Become(char* const argv[], int output, int errors, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == parent && dup2(output, STDOUT_FILENO) >= 0 && dup2(errors, STDERR_FILENO) >= 0) {
    execv(argv[0], argv);
  }
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::vector<std::string>& arguments, const std::string& log,
    StandardError standard_error) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("log \"", log, "\""));
  const pid_t parent = getpid();
  const int errors = standard_error == StandardError::kLogged ? file : STDERR_FILENO;
  const pid_t pid = fork();
  if (pid == 0) Become(argv.data(), file, errors, parent);
  const int error = errno;
  close(file);
  if (pid < 0) return absl::ErrnoToStatus(error, "fork");
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, log));
}

std::optional<int> ChildProcess::ExitCode() {
  int status = 0;
  if (!exit_code_ && waitpid(pid_, &status, WNOHANG) == pid_) {
    exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  return exit_code_;
}

std::optional<int> ChildProcess::AwaitExit(absl::Duration patience) {
  Eventually([this] { return ExitCode().has_value(); }, patience);
  return exit_code_;
}

void ChildProcess::Signal(int signal) {
  if (!ExitCode()) kill(pid_, signal);
}

void ChildProcess::Kill() {
  Signal(SIGKILL);
  AwaitExit(absl::InfiniteDuration());
}

std::string ChildProcess::LogTail() const {
  std::ifstream file(log_);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(std::move(line));
    if (lines.size() > kTailLines) lines.pop_front();
  }
  return absl::StrJoin(lines, "\n");
}

std::string RunfilePath(const std::string& file) {
  const char* const root = std::getenv("TEST_SRCDIR");
  const char* const workspace = std::getenv("TEST_WORKSPACE");
  if (root != nullptr && workspace != nullptr) return absl::StrCat(root, "/", workspace, "/", file);
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const auto& entry :
       std::filesystem::directory_iterator(absl::StrCat(program.string(), ".runfiles"), error)) {
    const std::filesystem::path path = entry.path() / file;
    if (std::filesystem::exists(path, error)) return path;
  }
  return file;
}

}  // namespace shardstep
