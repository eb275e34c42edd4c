// Loads a fleet of its own and says what it reached; with --sweep for one value after the other of
// one axis, so that one sees where the cost per byte or per step stops being flat:
//
//   bazel build //tests/bench:load_generator
//   bazel-bin/tests/bench/load_generator --servers 4 --trainers 16 --parameters 1000 --mib 64
//   bazel-bin/tests/bench/load_generator --sweep trainers
//
// One line for each value: steps/s, GB/s of gradients over all servers, seconds of a step per
// parameter and per GB, seconds until the optimizer was made, the highest peak of a server, and the
// processors that all servers used.

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/time/time.h"
#include "shardstep/tests/bench/own_network.h"
#include "shardstep/tests/bench/training.h"
#include "shardstep/wire/allocator.h"
#include "shardstep/wire/single_callback_thread.h"

namespace shardstep {
namespace {

struct Flags {
  int servers = 1;
  int trainers = 1;
  int parameters = 40;
  int64_t kib = 40 << 10;  // of the whole model
  bool asynchronous = false;
  bool pull = false;
  bool no_push = false;
  bool one_client = false;
  int threads = 1;
  double seconds = 3;
  std::string durability = "none";
  std::string sweep;
};

bool RunOnce(const Flags& flags) {
  TrainingOptions options;
  options.servers = flags.servers;
  options.trainers = flags.trainers;
  options.parameters = flags.parameters;
  options.bytes = std::max<int64_t>(4, (flags.kib << 10) / flags.parameters / 4 * 4);
  options.synchronous = !flags.asynchronous;
  options.pull = flags.pull;
  options.push = !flags.no_push;
  options.one_client = flags.one_client;
  options.threads = flags.threads;
  options.duration = absl::Seconds(flags.seconds);
  options.durability = flags.durability;
  const absl::StatusOr<TrainingResult> result = RunTraining(options);
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    return false;
  }
  const double step = 1 / result->steps_per_second;
  const auto model = static_cast<double>(options.bytes * options.parameters);
  std::printf("%7d %8d %10d %10.1f %10.1f %8.2f %14.3f %10.3f %9.2f %9.0f %6.2f\n", flags.servers,
              flags.trainers, flags.parameters, model / (1 << 20), result->steps_per_second,
              result->pushed_per_second / 1e9, step / flags.parameters * 1e6, step / model * 1e9,
              result->creation,
              static_cast<double>(*std::max_element(result->peaks.begin(), result->peaks.end())) /
                  (1 << 20),
              std::accumulate(result->cores.begin(), result->cores.end(), 0.0));
  std::fflush(stdout);
  return true;
}

int Run(Flags flags) {
  std::printf("%7s %8s %10s %10s %10s %8s %14s %10s %9s %9s %6s\n", "servers", "trainers",
              "parameters", "MiB", "steps/s", "GB/s", "us/step/param", "s/step/GB", "create s",
              "peak MiB", "cores");
  if (flags.sweep.empty()) return RunOnce(flags) ? 0 : 1;
  const auto sweep = [&flags](auto* value, const std::vector<int64_t>& values) {
    for (const int64_t next : values) {
      *value = static_cast<std::decay_t<decltype(*value)>>(next);
      if (!RunOnce(flags)) return 1;
    }
    return 0;
  };
  if (flags.sweep == "servers") return sweep(&flags.servers, {1, 2, 4, 8});
  if (flags.sweep == "trainers") return sweep(&flags.trainers, {1, 4, 16, 64});
  if (flags.sweep == "parameters") {
    return sweep(&flags.parameters, {10, 100, 1000, 10000, 100000});
  }
  return sweep(&flags.kib, {1 << 10, 16 << 10, 256 << 10, 1 << 20, 4 << 20});
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::ConfigureAllocator();
  shardstep::Flags flags;
  int64_t mib = 40;
  CLI::App app("Loads a fleet of its own.");
  app.add_option("--servers", flags.servers)->capture_default_str();
  app.add_option("--trainers", flags.trainers)->capture_default_str();
  app.add_option("--parameters", flags.parameters)->capture_default_str();
  app.add_option("--mib", mib, "MiB of all parameters together")->capture_default_str();
  app.add_flag("--asynchronous", flags.asynchronous, "Each trainer steps by itself");
  app.add_flag("--pull", flags.pull, "Each step is followed by a pull");
  app.add_flag("--no-push", flags.no_push, "Steps have no gradients");
  app.add_flag("--one-client", flags.one_client, "All trainers share connections");
  app.add_option("--threads", flags.threads, "Of a server's tensor work")->capture_default_str();
  app.add_option("--seconds", flags.seconds)->capture_default_str();
  app.add_option("--durability", flags.durability, "none, checkpoint or wal")
      ->capture_default_str();
  app.add_option("--sweep", flags.sweep, "servers, trainers, parameters or mib")
      ->check(CLI::IsMember({"servers", "trainers", "parameters", "mib"}));
  CLI11_PARSE(app, argc, argv);
  shardstep::EnterOwnNetwork();
  const shardstep::SingleCallbackThread single;
  flags.kib = mib << 10;
  return shardstep::Run(flags);
}
