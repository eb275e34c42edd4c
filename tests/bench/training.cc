#include "shardstep/tests/bench/training.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "shardstep/client/client.h"
#include "shardstep/client/sharded_optimizer.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/process_memory.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

constexpr char kName[] = "training";
constexpr double kLearningRate = 1.0 / 1024;
// Above this, so that 4 GiB of model fit a small machine, parameters begin where gradients lie.
constexpr int64_t kDistinctBytes = int64_t{1} << 30;

// That each trainer measures, however long they take.
constexpr size_t kLeastRounds = 3;

float StartOf(int parameter) { return static_cast<float>(parameter % 64); }

// All parameters of the optimizer, as one process sees them.
Floats MakeParameters(const TrainingOptions& options, bool distinct) {
  const int64_t elements = options.bytes / static_cast<int64_t>(sizeof(float));
  Floats parameters;
  for (int i = 0; i < options.parameters; ++i) {
    parameters.Add(absl::StrFormat("p%06d", i), {elements}, distinct ? StartOf(i) : 1.0F);
  }
  return parameters;
}

// Processor time that the process has used so far.
double CpuSeconds(pid_t pid) {
  std::ifstream stat(absl::StrCat("/proc/", pid, "/stat"));
  std::string field;
  double ticks = 0;
  for (int i = 1; i <= 15 && stat >> field; ++i) {
    if (i >= 14) ticks += std::stod(field);
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

class Training {
 public:
  explicit Training(const TrainingOptions& options)
      : options_(options),
        distinct_(options.bytes * options.parameters < kDistinctBytes),
        gradients_(MakeParameters(options, /*distinct=*/false)) {}

  absl::StatusOr<TrainingResult> Run();

 private:
  absl::Status Start();
  absl::StatusOr<ShardedOptimizer> Open(int rank, const Floats& into);
  void Train(int rank, ShardedOptimizer* optimizer, const Floats* into);
  absl::Status Round(ShardedOptimizer* optimizer, const Floats& into);
  bool Goes(int rank, uint64_t version, size_t measured);
  absl::Status Check(ShardedOptimizer* optimizer, Floats* into);
  void Fail(const absl::Status& status);

  const TrainingOptions options_;
  const bool distinct_;
  const Floats gradients_;
  std::unique_ptr<MiniFleet> fleet_;
  std::vector<Client> clients_;  // by trainer rank
  absl::Time begin_;
  absl::Time end_;
  // Of synchronous training: where all trainers stop.
  std::atomic<uint64_t> last_version_{std::numeric_limits<uint64_t>::max()};

  Mutex mutex_;
  TrainingResult result_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::Status Training::Start() {
  MiniFleetOptions fleet;
  fleet.servers = options_.servers;
  fleet.threads = options_.threads;
  fleet.durability = options_.durability;
  fleet.shard_memory = fleet.push_memory = fleet.snapshot_memory = int64_t{32} << 30;
  fleet_ = MakeProcessFleet(fleet);
  SHARDSTEP_RETURN_IF_ERROR(fleet_->Start());
  for (int rank = 0; rank < options_.trainers; ++rank) {
    if (rank > 0 && options_.one_client) {
      clients_.push_back(clients_[0]);
      continue;
    }
    SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_->fleet_file()));
    clients_.push_back(std::move(client));
  }
  return absl::OkStatus();
}

absl::StatusOr<ShardedOptimizer> Training::Open(int rank, const Floats& into) {
  const Mode mode = options_.synchronous ? Mode(Synchronous(options_.trainers))
                                         : Mode(Asynchronous(std::numeric_limits<uint64_t>::max()));
  return clients_[rank].CreateOptimizer(kName, into.named(), options_.optimizer, mode, rank);
}

absl::StatusOr<TrainingResult> Training::Run() {
  SHARDSTEP_RETURN_IF_ERROR(Start());
  // Each trainer pulls into memory of its own; without pulls only the last comparison needs some.
  std::vector<Floats> into;
  std::vector<ShardedOptimizer> optimizers;
  const absl::Time creation = absl::Now();
  double created = 0;
  for (int rank = 0; rank < options_.trainers; ++rank) {
    if (rank == 0 || options_.pull) into.push_back(MakeParameters(options_, distinct_));
    SHARDSTEP_ASSIGN_OR_RETURN(ShardedOptimizer optimizer, Open(rank, into.back()));
    optimizers.push_back(std::move(optimizer));
    if (rank == 0) created = absl::ToDoubleSeconds(absl::Now() - creation);
  }
  begin_ = absl::Now() + options_.warm_up;
  end_ = begin_ + options_.duration;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < options_.trainers; ++rank) {
    const Floats* own = &into[std::min<size_t>(rank, into.size() - 1)];
    threads.emplace_back([this, rank, own, &optimizers] { Train(rank, &optimizers[rank], own); });
  }
  absl::SleepFor(options_.warm_up);
  std::vector<double> cpu;
  for (int server = 0; server < options_.servers; ++server) {
    cpu.push_back(CpuSeconds(fleet_->pid(server)));
  }
  absl::SleepFor(end_ - absl::Now());
  for (int server = 0; server < options_.servers; ++server) {
    cpu[server] = CpuSeconds(fleet_->pid(server)) - cpu[server];
  }
  for (std::thread& thread : threads) thread.join();

  MutexLock lock(&mutex_);
  SHARDSTEP_RETURN_IF_ERROR(status_);
  for (int server = 0; server < options_.servers; ++server) {
    result_.peaks.push_back(PeakResidentBytes(fleet_->pid(server)));
    result_.cores.push_back(cpu[server] / absl::ToDoubleSeconds(options_.duration));
  }
  SHARDSTEP_RETURN_IF_ERROR(Check(&optimizers[0], &into[0]));
  result_.creation = created;
  const double steps =
      static_cast<double>(result_.rounds.size()) / (options_.synchronous ? options_.trainers : 1);
  // Whole rounds only: the time that they took, not that of the clock.
  double busy = 0;
  for (const double round : result_.rounds) busy += round;
  const double seconds = busy / options_.trainers;
  result_.steps_per_second = steps / seconds;
  result_.pushed_per_second = static_cast<double>(result_.rounds.size()) *
                              static_cast<double>(options_.bytes * options_.parameters) / seconds;
  return result_;
}

bool Training::Goes(int rank, uint64_t version, size_t measured) {
  const bool enough = absl::Now() >= end_ && measured >= kLeastRounds;
  if (!options_.synchronous) return !enough;
  if (rank == 0 && enough) {
    // The others are in the next step at most.
    uint64_t none = std::numeric_limits<uint64_t>::max();
    last_version_.compare_exchange_strong(none, options_.trainers == 1 ? version : version + 1);
  }
  return version < last_version_;
}

void Training::Train(int rank, ShardedOptimizer* optimizer, const Floats* into) {
  std::vector<double> rounds;
  while (Goes(rank, optimizer->version(), rounds.size())) {
    const absl::Time begin = absl::Now();
    const absl::Status status = Round(optimizer, *into);
    if (!status.ok()) return Fail(status);
    if (begin >= begin_) rounds.push_back(absl::ToDoubleSeconds(absl::Now() - begin));
  }
  MutexLock lock(&mutex_);
  result_.rounds.insert(result_.rounds.end(), rounds.begin(), rounds.end());
}

absl::Status Training::Round(ShardedOptimizer* optimizer, const Floats& into) {
  if (options_.push) SHARDSTEP_RETURN_IF_ERROR(Push(*optimizer, gradients_));
  StepOptions step;
  step.timeout = absl::Minutes(1);
  step.snapshot = options_.pull ? SnapshotContents::kParameters : SnapshotContents::kNone;
  SHARDSTEP_RETURN_IF_ERROR(optimizer->Step(step).status());
  return options_.pull ? optimizer->Pull(into.named()).status() : absl::OkStatus();
}

absl::Status Training::Check(ShardedOptimizer* optimizer, Floats* into) {
  SHARDSTEP_ASSIGN_OR_RETURN(const PullResult pulled, optimizer->Pull(into->named()));
  const bool sgd = options_.optimizer.kind == "SGD";
  const auto lowered =
      static_cast<float>(options_.push ? static_cast<double>(pulled.version) * kLearningRate : 0);
  for (int i = 0; i < options_.parameters; ++i) {
    const float expected = (distinct_ ? StartOf(i) : 1.0F) - lowered;
    for (const float value : (*into)[into->named()[i].name]) {
      if (sgd ? value == expected : std::isfinite(value)) continue;
      return absl::DataLossError(absl::StrCat("parameter ", i, " of version ", pulled.version,
                                              ": expected ", expected, ", got ", value));
    }
  }
  return absl::OkStatus();
}

void Training::Fail(const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (status_.ok()) status_ = status;
}

}  // namespace

absl::StatusOr<TrainingResult> RunTraining(const TrainingOptions& options) {
  return Training(options).Run();
}

}  // namespace shardstep
