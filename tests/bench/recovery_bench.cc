// Durability "wal" in figures, in one run on one disk:
//  - how long a server that holds parameters with Adam state and was killed under load, with at
//    least four steps in its log, takes from its start until it serves again;
//  - what a push and a step cost with the log and without it, beside the disk's own speed (dd);
//  - what part of a server's CPU time the detection of duplicates takes.
//
//   bazel run -c opt //tests/bench:recovery_bench -- [--mib 256] [--repeats 5] [--step-mib 64]

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/client/client.h"
#include "shardstep/server/committed_calls.h"
#include "shardstep/tests/bench/measure.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/raw_trainer.h"
#include "shardstep/tests/test_client.h"
#include "shardstep/wire/crc32c.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

namespace fs = std::filesystem;

constexpr char kName[] = "m";
constexpr int kTensors = 16;
constexpr int kStepsInLog = 4;

MiniFleetOptions OneServer(const std::string& durability) {
  MiniFleetOptions options;
  options.servers = 1;
  options.threads = static_cast<int>(std::thread::hardware_concurrency());
  options.durability = durability;
  options.shard_memory = options.push_memory = options.snapshot_memory = int64_t{16} << 30;
  return options;
}

Floats Parameters(int mib) {
  Floats parameters;
  for (int i = 0; i < kTensors; ++i) {
    parameters.Add(absl::StrCat("p", i), {int64_t{mib} << 18 >> 4}, 0.5F);
  }
  return parameters;
}

StepOptions WithoutSnapshot() {
  StepOptions options;
  options.snapshot = SnapshotContents::kNone;
  return options;
}

// A trainer that steps without a pause, whatever happens to the server.
class Load {
 public:
  Load(const std::string& fleet_file, int mib) : parameters_(Parameters(mib)) {
    thread_ = std::thread([this, fleet_file] {
      Client client = Client::Connect(fleet_file).value();
      ShardedOptimizer optimizer =
          client.CreateOptimizer(kName, parameters_.named(), AdamOptions(), Synchronous(1), 0)
              .value();
      while (!stopping_) Must(PushAndStep(optimizer, parameters_, WithoutSnapshot()).status());
    });
  }
  ~Load() {
    stopping_ = true;
    thread_.join();
  }

 private:
  Floats parameters_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

struct LogFiles {
  int64_t base = 0;
  int64_t log = 0;
};

LogFiles FilesIn(const std::string& directory) {
  LogFiles files;
  std::error_code error;  // files come and go
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    const auto bytes = static_cast<int64_t>(fs::file_size(entry.path(), error));
    if (error || absl::EndsWith(name, ".tmp")) continue;
    if (absl::StartsWith(name, "base-")) files.base = std::max(files.base, bytes);
    if (absl::StartsWith(name, "log-")) files.log += bytes;
  }
  return files;
}

void Recovery(int mib, int repeats) {
  const int64_t bytes = int64_t{mib} << 20;
  MiniFleetOptions options = OneServer("wal");
  // A new base comes with every fifth step.
  options.log_bytes = bytes * kStepsInLog + bytes / 2;
  const auto fleet = MakeProcessFleet(options);
  Must(fleet->Start());
  const std::string directory = absl::StrCat(fleet->data_directory(0), "/wal/", kName);
  std::vector<double> seconds;
  std::vector<double> replayed;
  Load load(fleet->fleet_file(), mib);
  while (static_cast<int>(seconds.size()) < repeats) {
    const bool ready = Eventually(
        [&] {
          const LogFiles files = FilesIn(directory);
          // With Adam's state it is three times as large as the parameters.
          return files.base >= 3 * bytes && files.log >= kStepsInLog * bytes;
        },
        absl::Minutes(5));
    if (!ready) Must(absl::DeadlineExceededError("no log with enough steps behind a base"));
    fleet->Kill(0);
    const LogFiles files = FilesIn(directory);
    replayed.push_back(static_cast<double>(files.base + files.log));
    seconds.push_back(SecondsOf([&] {
      Must(fleet->StartServer(0));
      v1::DescribeRequest request;
      request.mutable_header()->set_optimizer(kName);
      RawTrainer asking(*fleet, kName, 1, "asks whether it serves");
      while (!Call(asking.coordinator(), &v1::Coordinator::Stub::Describe, request).ok()) {
        absl::SleepFor(absl::Milliseconds(5));
      }
    }));
    Must(fleet->WriteFleetFile());
  }
  std::printf(
      "recovery of %d MiB of parameters with Adam state: serving after %.2f s (p50 of %d, "
      "longest %.2f s), %.0f MiB replayed (p50)\n",
      mib, Median(seconds), repeats, *std::max_element(seconds.begin(), seconds.end()),
      Median(replayed) / (1 << 20));
}

double CpuSeconds(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string skipped;
  for (int field = 1; field < 14; ++field) file >> skipped;
  double user = 0, system = 0;
  file >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

struct StepCost {
  double seconds = 0;      // p50
  double cpu_seconds = 0;  // of the server, mean
};

StepCost CostOf(const std::string& durability, int mib, int steps) {
  const auto fleet = MakeProcessFleet(OneServer(durability));
  Must(fleet->Start());
  Client client = Client::Connect(fleet->fleet_file()).value();
  Floats parameters = Parameters(mib);
  ShardedOptimizer optimizer =
      client.CreateOptimizer(kName, parameters.named(), AdamOptions(), Synchronous(1), 0).value();
  Must(PushAndStep(optimizer, parameters, WithoutSnapshot()).status());
  std::vector<double> seconds;
  const double cpu = CpuSeconds(fleet->pid(0));
  for (int i = 0; i < steps; ++i) {
    seconds.push_back(
        SecondsOf([&] { Must(PushAndStep(optimizer, parameters, WithoutSnapshot()).status()); }));
  }
  return {Median(seconds), (CpuSeconds(fleet->pid(0)) - cpu) / steps};
}

double DiskSeconds(int mib, int repeats) {
  const char* const folder = std::getenv("TEST_TMPDIR");
  const std::string file = absl::StrCat(folder == nullptr ? "/tmp" : folder, "/recovery_bench.dd");
  const std::string command = absl::StrCat("dd if=/dev/zero of=", file,
                                           " bs=1M conv=fdatasync count=", mib, " 2>/dev/null");
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    seconds.push_back(SecondsOf([&] {
      if (std::system(command.c_str()) != 0) Must(absl::InternalError(command));
    }));
    fs::remove(file);
  }
  return Median(seconds);
}

// What is done for one push and one step only because either may come twice.
double DuplicateDetectionSeconds(int mib) {
  constexpr int kTimes = 1000;
  const size_t frames = (static_cast<size_t>(mib) << 20) / kDefaultFramePayloadBytes;
  CommittedCalls calls;
  v1::Contribution contribution;
  contribution.mutable_pushes()->set_session(1);
  uint64_t sum = 0;
  const double seconds = SecondsOf([&] {
    for (int i = 1; i <= kTimes; ++i) {
      FrameDigest digest;
      for (size_t frame = 0; frame < frames; ++frame) digest.Add(static_cast<uint32_t>(frame + i));
      v1::StepRequest request;
      request.set_first_push(i);
      request.set_last_push(i);
      contribution.set_call(i);
      contribution.set_call_fingerprint(Crc32cHex(Crc32c(request.SerializeAsString())));
      calls.Forget(1, i);
      calls.Note(contribution, v1::StepReply::Committed());
      sum += digest.value() + (calls.Find(1, i) != nullptr ? 1 : 0);
    }
  });
  if (sum == 0) std::printf("impossible\n");  // so that it is not optimized away
  return seconds / kTimes;
}

void Cost(int mib, int steps) {
  const StepCost none = CostOf("none", mib, steps);
  const double disk = DiskSeconds(mib, 5);
  const StepCost wal = CostOf("wal", mib, steps);
  std::printf(
      "push and step of %d MiB: %.0f ms without a log, %.0f ms with it; dd with fdatasync "
      "of as much: %.0f ms; the log costs %.2f of that\n",
      mib, none.seconds * 1e3, wal.seconds * 1e3, disk * 1e3, (wal.seconds - none.seconds) / disk);
  const double duplicates = DuplicateDetectionSeconds(mib);
  std::printf("duplicate detection: %.1f us of %.1f ms of the server's CPU, %.3f %%\n",
              duplicates * 1e6, none.cpu_seconds * 1e3, 100 * duplicates / none.cpu_seconds);
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  int mib = 256;
  int repeats = 5;
  int step_mib = 64;
  CLI::App app("Recovery, and the cost of the log.");
  app.add_option("--mib", mib, "MiB of parameters to recover; Adam's state is twice as much")
      ->capture_default_str();
  app.add_option("--repeats", repeats, "Kills")->capture_default_str();
  app.add_option("--step-mib", step_mib, "MiB of parameters of the steps that are timed")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  constexpr int kSteps = 15;
  shardstep::Cost(step_mib, kSteps);
  shardstep::Recovery(mib, repeats);
}
