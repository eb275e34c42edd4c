// What a checkpoint and a restore cost beside dd, in one run: real servers, parameters with Adam
// state, one disk.
//
//   bazel run -c opt //tests/bench:checkpoint_bench -- [--mib 1024] [--servers 3] [--repeats 3]
//
// Prints, as medians: writing (until the checkpoint is durable) against `dd conv=fsync` of as many
// bytes, restoring from files that are not in the page cache against dd reading a cold file, and
// what a server's peak memory rose by above its shards and the held version.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/bench/measure.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/process_memory.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

namespace fs = std::filesystem;

void MustRun(const std::string& command) {
  if (std::system(command.c_str()) == 0) return;
  std::fprintf(stderr, "failed: %s\n", command.c_str());
  std::exit(1);
}

// Written back and out of the page cache.
void Evict(const std::string& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  fdatasync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

void ResetPeak(pid_t pid) { std::ofstream(absl::StrCat("/proc/", pid, "/clear_refs")) << "5"; }

void Run(int servers, int mib, int repeats) {
  MiniFleetOptions options;
  options.servers = servers;
  options.shard_memory = options.push_memory = options.snapshot_memory = int64_t{16} << 30;
  const auto fleet = MakeProcessFleet(options);
  Must(fleet->Start());
  Client client = Client::Connect(fleet->fleet_file()).value();
  constexpr int kTensors = 16;
  {
    Floats parameters;
    for (int i = 0; i < kTensors; ++i) {
      parameters.Add(absl::StrCat("p", i), {int64_t{mib} << 18 >> 4}, 0.5F);
    }
    ShardedOptimizer optimizer =
        client.CreateOptimizer("m", parameters.named(), AdamOptions(), Synchronous(1), 0).value();
    StepOptions step;
    step.snapshot = SnapshotContents::kNone;
    Must(PushAndStep(optimizer, parameters, step).status());
  }
  std::vector<double> written;
  std::vector<double> dd_written;
  std::vector<double> restored;
  std::vector<double> dd_read;
  int64_t rise = 0;
  const std::string file = fleet->directory() + "/dd";
  const std::string quiet = " bs=4M 2>/dev/null";
  for (int i = 0; i < repeats; ++i) {
    std::vector<int64_t> before;
    for (int server = 0; server < servers; ++server) {
      ResetPeak(fleet->pid(server));
      before.push_back(ResidentBytes(fleet->pid(server)));
    }
    const std::string id = absl::StrCat("c", i);
    CheckpointOptions named;
    named.id = id;
    CheckpointSummary made;
    const double write = SecondsOf([&] { made = client.Checkpoint("m", named).value(); });
    for (int server = 0; server < servers; ++server) {
      rise = std::max(rise, PeakResidentBytes(fleet->pid(server)) - before[server]);
    }
    const int64_t blocks = (static_cast<int64_t>(made.bytes) + (4 << 20) - 1) >> 22;
    const double dd = SecondsOf([&] {
      MustRun(absl::StrCat("dd if=/dev/zero of=", file, " conv=fsync count=", blocks, quiet));
    });
    written.push_back(made.bytes / write / 1e6);
    dd_written.push_back(made.bytes / dd / 1e6);

    const fs::path directory = fs::path(fleet->checkpoints()) / "m" / id;
    for (const auto& entry : fs::directory_iterator(directory)) Evict(entry.path());
    const double restore = SecondsOf([&] { Must(client.Restore("m", id).status()); });
    Evict(file);
    const double read =
        SecondsOf([&] { MustRun(absl::StrCat("dd if=", file, " of=/dev/null", quiet)); });
    restored.push_back(made.bytes / restore / 1e6);
    dd_read.push_back(made.bytes / read / 1e6);
    fs::remove(file);
    fs::remove_all(directory);
  }
  std::printf("write    %7.0f MB/s  dd fsync %7.0f MB/s  ratio %.2f\n", Median(written),
              Median(dd_written), Median(written) / Median(dd_written));
  std::printf("restore  %7.0f MB/s  dd cold  %7.0f MB/s  ratio %.2f\n", Median(restored),
              Median(dd_read), Median(restored) / Median(dd_read));
  std::printf("peak memory above what stood before the checkpoint: %.0f MiB at most\n",
              static_cast<double>(rise) / (1 << 20));
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  int servers = 3;
  int mib = 1024;
  int repeats = 3;
  CLI::App app("Checkpoint and restore beside dd.");
  app.add_option("--servers", servers)->capture_default_str();
  app.add_option("--mib", mib, "MiB of parameters; Adam's state is twice as much")
      ->capture_default_str();
  app.add_option("--repeats", repeats)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  shardstep::Run(servers, mib, repeats);
}
