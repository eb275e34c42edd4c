// shardstep-server: flags, signals, and the Server between them.
#include <ATen/Parallel.h>
#include <google/protobuf/stubs/logging.h>
#include <pthread.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "shardstep/optim/numeric_fingerprint.h"
#ifdef SHARDSTEP_FAULTS
#include "shardstep/server/process_faults.h"
#endif
#include "shardstep/server/host_allocator.h"
#include "shardstep/server/rpc/server.h"
#include "shardstep/server/rpc/server_options.h"
#include "shardstep/server/rpc/version.h"
#include "shardstep/wire/allocator.h"
#include "shardstep/wire/single_callback_thread.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace {

// With what comes before and behind it, a drain ends within 10 seconds.
constexpr absl::Duration kGrace = absl::Seconds(6);
constexpr int kExitRefused = 1;
constexpr int kExitUsage = 2;

struct Flags {
  shardstep::ServerOptions options;
  std::string numerics = "native";
  // As written.
  std::string checkpoint_interval;
  std::string lease;
};

// An absl::Duration, such as "30s", into `*duration`.
CLI::Validator AsDuration(absl::Duration* duration) {
  return CLI::Validator(
      [duration](const std::string& text) {
        return absl::ParseDuration(text, duration) ? std::string()
                                                   : "\"" + text + "\" is no duration such as 30s";
      },
      "DURATION");
}

// The same, or "auto", which is none.
CLI::Validator AsDurationOrAuto(std::optional<absl::Duration>* duration) {
  return CLI::Validator(
      [duration](const std::string& text) -> std::string {
        duration->reset();
        if (text == "auto" || absl::ParseDuration(text, &duration->emplace())) return "";
        return "\"" + text + "\" is neither auto nor a duration such as 30s";
      },
      "DURATION|auto");
}

void AddFlags(CLI::App* app, Flags* flags) {
  shardstep::ServerOptions& options = flags->options;
  options.threads = static_cast<int>(std::thread::hardware_concurrency());
  app->set_version_flag("--version", shardstep::kVersion);
  app->add_option("--fleet", options.fleet_file, "Fleet file. The server waits until it exists")
      ->required()
      ->envname("SHARDSTEP_FLEET");
  app->add_option("--rank", options.server_rank, "Place of this server in the fleet file, from 0")
      ->required();
  app->add_option("--data", options.data_directory,
                  "Data directory, made where it is missing; one server at a time")
      ->required();
  app->add_option("--listen", options.listen, "Address to listen on; port 0 takes a free one")
      ->capture_default_str();
  app->add_option("--address-file", options.address_file,
                  "File to write the host:port to that was bound");
  app->add_option("--devices", options.devices, "Devices that shards may be placed on: cpu")
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--threads", options.threads, "Threads that do the tensor work")
      ->capture_default_str();
  app->add_option("--numerics", flags->numerics,
                  "native: the bits that PyTorch has on this CPU; portable: the same bits on every "
                  "x86 with AVX2 and FMA. Servers with different CPUs need portable, all of them")
      ->check(CLI::IsMember({"native", "portable"}))
      ->capture_default_str();
  app->add_flag("--insecure", options.insecure,
                "Permit to listen on an address that other machines reach, without encryption");
  app->add_flag("--reflection", options.reflection,
                "Serve gRPC's reflection, for grpc_cli and such");
  const CLI::AsSizeValue as_size(/*kb_is_1000=*/false);
  app->add_option("--shard-memory", options.shard_memory,
                  "Most memory for parameters and their state, such as 4GiB "
                  "(default: half of the machine's)")
      ->transform(as_size);
  app->add_option("--push-memory", options.push_memory,
                  "Most memory for pushes that no step has consumed yet "
                  "(default: a quarter of the machine's)")
      ->transform(as_size);
  app->add_option("--snapshot-memory", options.snapshot_memory,
                  "Most memory that held versions may come to cost; beyond it, snapshots are "
                  "refused and steps go on (default: a quarter of the machine's)")
      ->transform(as_size);
  app->add_option("--checkpoint-interval", flags->checkpoint_interval,
                  "With durability \"checkpoint\": how often the servers write one by themselves; "
                  "auto: as often as costs 3.5 % of the time at most")
      ->check(AsDurationOrAuto(&options.checkpoint_interval))
      ->default_str(absl::FormatDuration(*options.checkpoint_interval));
  app->add_option("--keep-last", options.keep_last,
                  "How many of these automatic checkpoints stay; older ones are removed")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--log-size", options.log_size,
                  "With durability \"wal\": a log that is larger, and larger than the parameters "
                  "and state it stands on, is replaced by what they have become")
      ->transform(as_size)
      ->default_str("64MiB");
  app->add_option("--lease", flags->lease,
                  "How long a trainer or a reader may stay silent before others go on without it")
      ->check(AsDuration(&options.lease))
      ->default_str(absl::FormatDuration(options.lease));
}

// Serves until SIGTERM or SIGINT. Both are blocked in all threads.
int Serve(shardstep::ServerOptions options, const sigset_t& signals) {
  absl::StatusOr<std::unique_ptr<shardstep::Server>> server =
      shardstep::Server::Start(std::move(options));
  if (!server.ok()) {
    spdlog::error("{}", server.status().ToString());
    return kExitRefused;
  }
  int signal = 0;
  sigwait(&signals, &signal);
  spdlog::info("signal {}", signal);
  (*server)->Shutdown(kGrace);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  shardstep::ConfigureAllocator();
  shardstep::UseHostAllocator();
  // A packaged Abseil may be built to look for cycles at every lock, all of gRPC's among them.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  Flags flags;
  CLI::App app("A server of a shardstep fleet: holds shards of parameters and steps them.",
               "shardstep-server");
  AddFlags(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  // Before the first ATen call and the first thread: MKL reads the setting once.
  if (flags.numerics == "portable") shardstep::UsePortableNumerics();
  at::set_num_threads(1);

  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::stderr_sink_mt>()));
  // A peer could fill the log by sending text that is not UTF-8, one line each.
  google::protobuf::SetLogHandler(nullptr);

#ifdef SHARDSTEP_FAULTS
  if (const absl::Status armed = shardstep::faults::ConfigureFromEnvironment(); !armed.ok()) {
    spdlog::error("{}", armed.ToString());
    return kExitUsage;
  }
#endif

  // Threads inherit the mask, so that the signals wait for sigwait.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const shardstep::SingleCallbackThread single;
  return Serve(std::move(flags.options), signals);
}
