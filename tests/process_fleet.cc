#include <csignal>
#include <fstream>
#include <memory>
#include <optional>
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
    return AwaitExit(server, patience);
  }

  absl::StatusOr<int> AwaitExit(int server, absl::Duration patience) override {
    const std::optional<int> code = servers_[server]->AwaitExit(patience);
    if (code) return *code;
    return absl::DeadlineExceededError(absl::StrCat("server ", server, " still runs after ",
                                                    absl::FormatDuration(patience), ":\n",
                                                    LogTail(server)));
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

  std::string AddressFile(int server) const {
    return absl::StrCat(directory(), "/address-", server);
  }

  absl::Status Launch(int server) override {
    std::remove(AddressFile(server).c_str());
    std::vector<std::string> arguments;
    if (options().environment) {
      arguments.push_back("/usr/bin/env");
      for (const std::string& set : options().environment(server)) arguments.push_back(set);
    }
    arguments.push_back(RunfilePath(options().server_program));
    const auto add = [&arguments](const char* flag, const std::string& value) {
      arguments.insert(arguments.end(), {flag, value});
    };
    add("--fleet", fleet_file());
    add("--rank", absl::StrCat(server));
    add("--data", data_directory(server));
    add("--listen", "127.0.0.1:0");
    add("--address-file", AddressFile(server));
    add("--threads", absl::StrCat(options().threads));
    add("--lease", absl::FormatDuration(options().lease));
    add("--numerics", options().numerics);
    add("--shard-memory", absl::StrCat(options().shard_memory));
    add("--push-memory", absl::StrCat(options().push_memory));
    add("--snapshot-memory", absl::StrCat(options().snapshot_memory));
    add("--checkpoint-interval", absl::FormatDuration(options().checkpoint_interval));
    add("--log-size", absl::StrCat(options().log_bytes));
    for (const std::string& flag : options().server_flags) arguments.push_back(flag);
    SHARDSTEP_ASSIGN_OR_RETURN(
        servers_[server],
        ChildProcess::Start(arguments, absl::StrCat(directory(), "/log-", server)));
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> AwaitAddress(int server) override {
    std::string address;
    const auto bound = [&] { return bool(std::ifstream(AddressFile(server)) >> address); };
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
