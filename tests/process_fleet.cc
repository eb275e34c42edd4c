#include <csignal>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/child_process.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/mini_fleet.h"

namespace shardstep {
namespace {

constexpr absl::Duration kStartPatience = absl::Minutes(1);

class ProcessFleet final : public MiniFleet {
 public:
  explicit ProcessFleet(const MiniFleetOptions& options)
      : MiniFleet(options), servers_(options.servers) {}

  void Kill(int server) override { servers_[server].reset(); }

  absl::StatusOr<int> Terminate(int server, absl::Duration patience) override {
    servers_[server]->Signal(SIGTERM);
    const std::optional<int> code = servers_[server]->AwaitExit(patience);
    if (code) return *code;
    return absl::DeadlineExceededError(absl::StrCat("server ", server, " still runs ",
                                                    absl::FormatDuration(patience),
                                                    " after SIGTERM:\n", LogTail(server)));
  }

  absl::Status Pause(int server) override { return Send(server, SIGSTOP); }
  absl::Status Resume(int server) override { return Send(server, SIGCONT); }

  pid_t pid(int server) const override { return servers_[server]->pid(); }
  std::string LogTail(int server) const override {
    return servers_[server] == nullptr ? "" : servers_[server]->LogTail();
  }

 private:
  absl::Status Send(int server, int signal) {
    servers_[server]->Signal(signal);
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Launch(int server) override {
    const std::string address_file = absl::StrCat(directory(), "/address-", server);
    std::remove(address_file.c_str());
    SHARDSTEP_ASSIGN_OR_RETURN(
        servers_[server], ChildProcess::Start({RunfilePath("server/shardstep-server"),
                                               "--fleet",
                                               fleet_file(),
                                               "--rank",
                                               absl::StrCat(server),
                                               "--data",
                                               data_directory(server),
                                               "--listen",
                                               "127.0.0.1:0",
                                               "--address-file",
                                               address_file,
                                               "--threads",
                                               absl::StrCat(options().threads),
                                               "--lease",
                                               absl::FormatDuration(options().lease),
                                               "--numerics",
                                               options().numerics,
                                               "--shard-memory",
                                               absl::StrCat(options().shard_memory),
                                               "--push-memory",
                                               absl::StrCat(options().push_memory),
                                               "--snapshot-memory",
                                               absl::StrCat(options().snapshot_memory),
                                               "--checkpoint-interval",
                                               absl::FormatDuration(options().checkpoint_interval)},
                                              absl::StrCat(directory(), "/log-", server)));
    std::string address;
    const auto bound = [&] { return bool(std::ifstream(address_file) >> address); };
    const bool done =
        Eventually([&] { return bound() || servers_[server]->ExitCode(); }, kStartPatience);
    if (!address.empty()) return address;
    return absl::UnavailableError(
        absl::StrCat("server ", server, done ? " ended at its start:\n" : " does not come up:\n",
                     LogTail(server)));
  }

  std::vector<std::unique_ptr<ChildProcess>> servers_;
};

}  // namespace

std::unique_ptr<MiniFleet> MakeProcessFleet(const MiniFleetOptions& options) {
  return std::make_unique<ProcessFleet>(options);
}

}  // namespace shardstep
