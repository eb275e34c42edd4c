#include "shardstep/tests/bench/own_network.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status Refused(const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat(what, ": ", std::strerror(errno)));
}

absl::Status WriteFile(const char* path, const std::string& text) {
  const int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return Refused(path);
  const ssize_t written = write(file, text.data(), text.size());
  absl::Status status =
      written == static_cast<ssize_t>(text.size()) ? absl::OkStatus() : Refused(path);
  close(file);
  return status;
}

// Only who is root, here of a user namespace made for it, may make a network.
absl::Status LeaveNetwork() {
  if (unshare(CLONE_NEWNET) == 0) return absl::OkStatus();
  const uid_t user = getuid();
  const gid_t group = getgid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return Refused("unshare");
  SHARDSTEP_RETURN_IF_ERROR(WriteFile("/proc/self/setgroups", "deny"));
  SHARDSTEP_RETURN_IF_ERROR(WriteFile("/proc/self/uid_map", absl::StrCat(user, " ", user, " 1")));
  return WriteFile("/proc/self/gid_map", absl::StrCat(group, " ", group, " 1"));
}

absl::Status RaiseLoopback() {
  const int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (any < 0) return Refused("socket");
  ifreq request = {};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  absl::Status status =
      ioctl(any, SIOCSIFFLAGS, &request) == 0 ? absl::OkStatus() : Refused("loopback interface");
  close(any);
  return status;
}

absl::Status Enter() {
  SHARDSTEP_RETURN_IF_ERROR(LeaveNetwork());
  SHARDSTEP_RETURN_IF_ERROR(RaiseLoopback());
  // The one that every kernel has and lets any namespace choose; without losses as good as others.
  return WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", "reno");
}

// Enter() in a child: half of it would leave this process without any network.
absl::Status Try() {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return Refused("fork");
  if (child == 0) {
    const absl::Status status = Enter();
    if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    std::fflush(nullptr);
    _exit(status.ok() ? 0 : 1);
  }
  int ended = 0;
  if (waitpid(child, &ended, 0) != child) return Refused("waitpid");
  return ended == 0 ? absl::OkStatus()
                    : absl::FailedPreconditionError("the host does not allow it");
}

}  // namespace

void EnterOwnNetwork() {
  absl::Status status = Try();
  if (status.ok()) status = Enter();
  if (status.ok()) return;
  std::fprintf(stderr, "measured in the host's network: %s\n",
               std::string(status.message()).c_str());
}

}  // namespace shardstep
