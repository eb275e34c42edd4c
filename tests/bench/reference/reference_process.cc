#include "shardstep/tests/bench/reference/reference_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/child_process.h"

namespace shardstep {
namespace {

constexpr char kProgram[] = "tests/bench/reference/reference_server";
constexpr absl::Duration kStartPatience = absl::Minutes(1);

std::string ProgramPath() {
  std::error_code error;
  std::string path = RunfilePath(kProgram);
  if (std::filesystem::exists(path, error)) return path;
  return absl::StrCat("bazel-bin/", kProgram);
}

struct Pipe {
  ~Pipe() {
    if (read_end >= 0) close(read_end);
    if (write_end >= 0) close(write_end);
  }
  absl::Status Open() {
    std::array<int, 2> ends;
    // Other children must not keep an end open.
    if (pipe2(ends.data(), O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
    read_end = ends[0];
    write_end = ends[1];
    return absl::OkStatus();
  }
  int read_end = -1;
  int write_end = -1;
};

absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& arguments, int input, int output) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, argv[0], &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("program \"", argv[0], "\""));
  return pid;
}

absl::StatusOr<std::string> ReadLine(int fd) {
  const absl::Time give_up = absl::Now() + kStartPatience;
  std::string line;
  for (;;) {
    const absl::Duration left = give_up - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError("the reference server does not come up");
    }
    pollfd waiting = {fd, POLLIN, 0};
    if (poll(&waiting, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) <= 0) continue;
    char next = 0;
    const ssize_t got = read(fd, &next, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return absl::UnavailableError("the reference server ended at its start");
    if (next == '\n') return line;
    line += next;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReferenceProcess>> ReferenceProcess::Start(
    const std::string& kind, const TransferWorkload& workload, bool sgd) {
  std::vector<std::string> arguments = {
      ProgramPath(), absl::StrCat("--kind=", kind), absl::StrCat("--tensors=", workload.tensors),
      absl::StrCat("--bytes=", workload.bytes), absl::StrCat("--streams=", workload.streams)};
  if (sgd) arguments.emplace_back("--sgd");
  Pipe input;
  Pipe output;
  SHARDSTEP_RETURN_IF_ERROR(input.Open());
  SHARDSTEP_RETURN_IF_ERROR(output.Open());
  SHARDSTEP_ASSIGN_OR_RETURN(const pid_t pid, Spawn(arguments, input.read_end, output.write_end));
  std::unique_ptr<ReferenceProcess> process(new ReferenceProcess(pid, input.write_end));
  input.write_end = -1;
  // Else its end would not be seen.
  close(output.write_end);
  output.write_end = -1;
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string line, ReadLine(output.read_end));
  if (absl::SimpleAtoi(line, &process->port_)) return process;
  return absl::InternalError(absl::StrCat("expected a port, got \"", line, "\""));
}

ReferenceProcess::~ReferenceProcess() {
  close(input_);
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace shardstep
