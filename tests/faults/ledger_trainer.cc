// A trainer of the ledger model, as a process of its own, which may be killed and started again at
// any moment: it goes on where the fleet says that its trainer rank is.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/faults/ledger_model.h"
#include "shardstep/tests/faults/trainer_progress.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

// No call waits longer. What it may take until it has noticed is not its fault.
constexpr absl::Duration kDeadline = absl::Minutes(1);
constexpr absl::Duration kNoticed = absl::Seconds(1);
// A test that waits two seconds after every kill would have few of them.
constexpr absl::Duration kLongestBackoff = absl::Milliseconds(250);

class LedgerTrainer {
 public:
  LedgerTrainer(int trainers, int rank, bool coupled, bool wal, TrainerProgress* progress)
      : trainers_(trainers),
        rank_(rank),
        coupled_(coupled),
        wal_(wal),
        progress_(progress),
        model_(LedgerModel(trainers)),
        gradients_(model_.Like()) {}

  absl::Status Run(const std::string& fleet) {
    ClientOptions options;
    options.longest_backoff = kLongestBackoff;
    SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet, options));
    SHARDSTEP_ASSIGN_OR_RETURN(
        ShardedOptimizer optimizer,
        client.CreateOptimizer(kLedgerOptimizer, LedgerGroups(model_, coupled_),
                               LedgerOptions(coupled_), Synchronous(trainers_), rank_));
    SHARDSTEP_RETURN_IF_ERROR(CheckStart(optimizer));
    while (true) {
      const uint64_t stop_at = progress_->stop_at;
      if (stop_at != 0 && optimizer.version() >= stop_at) return absl::OkStatus();
      const absl::Status status = StepOnce(optimizer);
      if (!wal_ && IsRolledBack(status)) {
        SHARDSTEP_RETURN_IF_ERROR(GoOnFrom(optimizer));
      } else {
        SHARDSTEP_RETURN_IF_ERROR(status);
      }
    }
  }

 private:
  // A step that was acknowledged is known of; so is the trainer state that it carried.
  absl::Status CheckStart(const ShardedOptimizer& optimizer) {
    const uint64_t last = optimizer.last_step_version();
    const std::string state = last == 0 ? "" : StateAt(last);
    if (last >= progress_->acknowledged && optimizer.version() == last &&
        optimizer.trainer_state() == state) {
      return absl::OkStatus();
    }
    ++progress_->lost;
    return absl::DataLossError(
        absl::StrCat("trainer rank ", rank_, " had version ", progress_->acknowledged.load(),
                     " acknowledged, and finds version ", optimizer.version(), ", its last step ",
                     last, " and state \"", optimizer.trainer_state(), "\""));
  }

  // After a return to a checkpoint.
  absl::Status GoOnFrom(const ShardedOptimizer& optimizer) {
    ++progress_->rolled_back;
    progress_->acknowledged = optimizer.version();
    const std::string state = optimizer.version() == 0 ? "" : StateAt(optimizer.version());
    if (optimizer.version() >= durable_ && optimizer.trainer_state() == state) {
      return absl::OkStatus();
    }
    ++progress_->lost;
    return absl::DataLossError(absl::StrCat(
        "trainer rank ", rank_, " was promised version ", durable_, ", and returns to version ",
        optimizer.version(), " with state \"", optimizer.trainer_state(), "\""));
  }

  absl::Status StepOnce(ShardedOptimizer& optimizer) {
    progress_->phase = TrainerProgress::kPushing;
    FillGradients(trainers_, rank_, optimizer.version(), &gradients_);
    SHARDSTEP_RETURN_IF_ERROR(optimizer.set_trainer_state(StateAt(optimizer.version() + 1)));
    PushOptions last;
    last.last = true;
    SHARDSTEP_RETURN_IF_ERROR(Push(optimizer, gradients_, last));

    progress_->phase = TrainerProgress::kStepping;
    absl::Time begun = absl::Now();
    SHARDSTEP_ASSIGN_OR_RETURN(const StepResult step, optimizer.Step(WithTimeout(kDeadline)));
    NoteDuration(begun);
    durable_ = std::max(durable_, step.durable_version);
    if (wal_ && step.durable_version != step.version) {
      return absl::DataLossError(absl::StrCat("version ", step.version, " was acknowledged, and ",
                                              step.durable_version, " is durable"));
    }
    progress_->acknowledged = step.version;

    progress_->phase = TrainerProgress::kPulling;
    PullOptions pull;
    pull.timeout = kDeadline;
    begun = absl::Now();
    SHARDSTEP_ASSIGN_OR_RETURN(const PullResult pulled, optimizer.Pull(model_.named(), pull));
    NoteDuration(begun);
    const absl::Span<float> ledger = model_[kLedger];
    const bool whole = std::all_of(ledger.begin(), ledger.end(), [&pulled](float slot) {
      return slot == static_cast<float>(pulled.version);
    });
    if (!whole) ++progress_->torn;
    return absl::OkStatus();
  }

  void NoteDuration(absl::Time begun) {
    const absl::Duration overdue = absl::Now() - begun - kDeadline - kNoticed;
    progress_->overdue_ms =
        std::max(progress_->overdue_ms.load(), absl::ToInt64Milliseconds(overdue));
  }

  static std::string StateAt(uint64_t version) { return absl::StrCat("at ", version); }

  const int trainers_;
  const int rank_;
  const bool coupled_;
  const bool wal_;
  uint64_t durable_ = 0;  // the highest that was promised
  TrainerProgress* const progress_;
  Floats model_;
  Floats gradients_;
};

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  CLI::App app("Trains the ledger model.", "ledger_trainer");
  std::string fleet;
  std::string progress_file;
  std::string durability = "wal";
  int trainers = 2;
  int rank = 0;
  bool coupled = false;
  app.add_option("--fleet", fleet, "Fleet file")->required();
  app.add_option("--rank", rank, "Trainer rank")->required();
  app.add_option("--trainers", trainers, "How many trainers there are")->capture_default_str();
  app.add_option("--durability", durability, "Of the fleet")->capture_default_str();
  app.add_flag("--coupled,!--no-coupled", coupled, "Steps that need sums over all servers");
  app.add_option("--progress", progress_file, "File that is shared with whoever watches")
      ->required();
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<shardstep::SharedProgress> progress = shardstep::MapProgress(progress_file);
  const absl::Status status =
      progress.ok()
          ? shardstep::LedgerTrainer(trainers, rank, coupled, durability == "wal", progress->get())
                .Run(fleet)
          : progress.status();
  if (status.ok()) return 0;
  std::fprintf(stderr, "trainer rank %d: %s\n", rank, status.ToString().c_str());
  return 1;
}
