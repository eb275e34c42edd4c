#include "shardstep/tests/faults/ledger_fleet.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/faults/ledger_model.h"
#include "shardstep/tests/faults/reference_run.h"

namespace shardstep {

std::string LedgerVerdict::ToString() const {
  return absl::StrCat("lost=", lost, " duplicated=", duplicated, " torn=", torn,
                      " identical=", identical ? "yes" : "no");
}

LedgerFleet::LedgerFleet(const LedgerFleetOptions& options)
    : options_(options), fleet_(MakeProcessFleet(options.fleet)), trainers_(options.trainers) {}

absl::Status LedgerFleet::Start() {
  SHARDSTEP_RETURN_IF_ERROR(fleet_->Start());
  for (int rank = 0; rank < options_.trainers; ++rank) {
    SHARDSTEP_ASSIGN_OR_RETURN(SharedProgress progress,
                               MapProgress(absl::StrCat(fleet_->directory(), "/progress-", rank)));
    progress_.push_back(std::move(progress));
    SHARDSTEP_RETURN_IF_ERROR(StartTrainer(rank));
  }
  return AwaitBeyond(0);
}

absl::Status LedgerFleet::StartTrainer(int rank) {
  const std::string directory = fleet_->directory();
  SHARDSTEP_ASSIGN_OR_RETURN(
      trainers_[rank],
      ChildProcess::Start(
          {RunfilePath("tests/faults/ledger_trainer"), "--fleet", fleet_->fleet_file(), "--rank",
           absl::StrCat(rank), "--trainers", absl::StrCat(options_.trainers), "--durability",
           options_.fleet.durability, "--progress", absl::StrCat(directory, "/progress-", rank),
           options_.coupled ? "--coupled" : "--no-coupled"},
          absl::StrCat(directory, "/trainer-", rank)));
  return absl::OkStatus();
}

uint64_t LedgerFleet::MaxAcknowledged() const {
  uint64_t version = 0;
  for (const auto& progress : progress_) version = std::max(version, progress->acknowledged.load());
  return version;
}

absl::Status LedgerFleet::AwaitBeyond(uint64_t version, absl::Duration patience) {
  const auto beyond = [&] {
    return std::all_of(progress_.begin(), progress_.end(),
                       [&](const auto& progress) { return progress->acknowledged > version; });
  };
  const auto ended = [](const auto& trainer) { return trainer->ExitCode().has_value(); };
  const auto dead = [&] { return std::any_of(trainers_.begin(), trainers_.end(), ended); };
  Eventually([&] { return beyond() || dead(); }, patience);
  if (beyond()) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("trainers did not get beyond version ", version,
                                                  dead() ? ", one has ended" : "", Logs()));
}

std::string LedgerFleet::Logs() const {
  std::string logs;
  for (int rank = 0; rank < options_.trainers; ++rank) {
    absl::StrAppend(&logs, "\ntrainer rank ", rank, " at ", progress_[rank]->acknowledged.load(),
                    ": ", trainers_[rank]->LogTail());
  }
  for (int server = 0; server < options_.fleet.servers; ++server) {
    absl::StrAppend(&logs, "\nserver ", server, ": ", fleet_->LogTail(server));
  }
  return logs;
}

absl::StatusOr<LedgerVerdict> LedgerFleet::End(uint64_t version) {
  LedgerVerdict verdict;
  // None of them is that far yet.
  const uint64_t stop_at = std::max(version, MaxAcknowledged() + 3);
  for (const auto& progress : progress_) progress->stop_at = stop_at;
  SHARDSTEP_RETURN_IF_ERROR(AwaitBeyond(stop_at - 1, absl::Minutes(5)));
  for (int rank = 0; rank < options_.trainers; ++rank) {
    const std::optional<int> code = trainers_[rank]->AwaitExit(absl::Minutes(1));
    if (code != 0) {
      return absl::InternalError(absl::StrCat("trainer rank ", rank, " does not end well", Logs()));
    }
    verdict.lost += progress_[rank]->lost;
    verdict.torn += progress_[rank]->torn;
    verdict.rolled_back += progress_[rank]->rolled_back;
    verdict.overdue_ms = std::max(verdict.overdue_ms, progress_[rank]->overdue_ms.load());
  }
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_->fleet_file()));
  SHARDSTEP_ASSIGN_OR_RETURN(OptimizerReader reader, client.OpenReader(kLedgerOptimizer));
  Floats model = LedgerModel(options_.trainers);
  // Fails unless all servers answer with one version.
  SHARDSTEP_ASSIGN_OR_RETURN(const PullResult pulled, reader.Pull(model.named()));
  verdict.version = pulled.version;
  if (pulled.version < stop_at) verdict.lost += stop_at - pulled.version;
  if (pulled.version > stop_at) verdict.duplicated += pulled.version - stop_at;
  const absl::Span<float> ledger = model[kLedger];
  const float expected = static_cast<float>(pulled.version);
  for (int trainer = 0; trainer < options_.trainers; ++trainer) {
    float lowest = expected;
    float highest = expected;
    for (size_t i = trainer; i < ledger.size(); i += options_.trainers) {
      lowest = std::min(lowest, ledger[i]);
      highest = std::max(highest, ledger[i]);
      if (ledger[i] != ledger[trainer]) ++verdict.torn;
    }
    verdict.lost += static_cast<uint64_t>(expected - lowest);
    verdict.duplicated += static_cast<uint64_t>(highest - expected);
  }
  verdict.identical = true;
  for (const auto& [name, values] :
       ReferenceRun(options_.trainers, pulled.version, options_.coupled)) {
    const absl::Span<float> got = model[name];
    verdict.identical = verdict.identical && got.size() == values.size() &&
                        std::memcmp(got.data(), values.data(), got.size() * sizeof(float)) == 0;
  }
  return verdict;
}

}  // namespace shardstep
