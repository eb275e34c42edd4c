#include "shardstep/tests/bench/step_figures.h"

#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/latencies.h"
#include "shardstep/tests/bench/subjects.h"
#include "shardstep/tests/bench/training.h"
#include "shardstep/tests/bench/update_reference.h"
#include "shardstep/tests/child_process.h"

namespace shardstep {
namespace {

constexpr int64_t kKi = 1 << 10;
constexpr int64_t kMi = 1 << 20;

// The median of `figure` over the repeats of one kind of training, interleaved with the others by
// the caller.
using Series = std::vector<double>;

TrainingOptions Small(int trainers, const MeasureOptions& options) {
  TrainingOptions training;
  training.servers = 3;
  training.trainers = trainers;
  training.parameters = 1;
  training.bytes = kKi;
  training.synchronous = false;
  training.one_client = true;
  training.threads = 1;
  training.duration = options.duration;
  return training;
}

}  // namespace

absl::Status MeasureLatencies(const MeasureOptions& options, Report* report) {
  Series step_to_unary;
  for (const int64_t bytes : {kKi, 64 * kMi}) {
    if (options.bars_only && bytes != kKi) continue;
    const int tensors = bytes == kKi ? 1 : 16;
    const int count = bytes == kKi ? static_cast<int>(absl::ToDoubleSeconds(options.duration) * 300)
                                   : static_cast<int>(absl::ToDoubleSeconds(options.duration) * 5);
    const std::string section =
        absl::StrCat("latencies, 3 servers, model of ", bytes == kKi ? "1 KiB" : "64 MiB");
    std::map<std::string, Series> p50, p99;
    for (int repeat = 0; repeat < options.repeats; ++repeat) {
      SHARDSTEP_ASSIGN_OR_RETURN(const Latencies found,
                                 MeasureLatenciesOnce(3, tensors, bytes / tensors, count));
      for (const auto& [what, seconds] : found) {
        p50[what].push_back(Quantile(seconds, 0.5));
        p99[what].push_back(Quantile(seconds, 0.99));
      }
      if (bytes == kKi) step_to_unary.push_back(p50["step"].back() / p50["unary call"].back());
    }
    for (const auto& [what, medians] : p50) {
      report->Add(section, absl::StrCat(what, ", p50"), Median(medians) * 1e6, "us");
      report->Add(section, absl::StrCat(what, ", p99"), Median(p99[what]) * 1e6, "us");
    }
  }
  report->Bar("step of 1 KiB on 3 servers, p50 / unary round trip", Report::Kind::kAtMost,
              Median(step_to_unary), 4.5, 3.5);
  return absl::OkStatus();
}

absl::Status MeasureAsynchronous(const MeasureOptions& options, Report* report) {
  for (const bool push : {false, true}) {
    // The bar is about steps alone, as that of their latency is.
    if (push && options.bars_only) break;
    std::map<int, Series> rates;
    Series gain;
    for (int repeat = 0; repeat < options.repeats; ++repeat) {
      for (const int trainers : {1, 4, 16, 32}) {
        if (options.bars_only && trainers != 1 && trainers != 32) continue;
        TrainingOptions training = Small(trainers, options);
        training.push = push;
        SHARDSTEP_ASSIGN_OR_RETURN(const TrainingResult result, RunTraining(training));
        rates[trainers].push_back(result.steps_per_second);
      }
      gain.push_back(rates[32].back() / rates[1].back());
    }
    const std::string section = absl::StrCat("asynchronous steps per second, 3 servers, 1 KiB, ",
                                             push ? "with" : "without", " gradients");
    for (const auto& [trainers, series] : rates) {
      report->Add(section, absl::StrCat(trainers, trainers == 1 ? " trainer" : " trainers"),
                  Median(series), "steps/s");
    }
    if (push) {
      report->Add(section, "32 trainers / 1", Median(gain), "");
    } else {
      report->Bar("asynchronous, without gradients, 32 steps in flight / 1", Report::Kind::kAtLeast,
                  Median(gain), 6);
    }
  }
  return absl::OkStatus();
}

absl::Status MeasureWholeStep(const MeasureOptions& options, const Rates& rates, Report* report) {
  constexpr int kTensors = 16;
  TrainingOptions training;
  training.servers = training.trainers = 2;
  training.parameters = kTensors;
  training.bytes = 64 * kMi / kTensors;
  training.pull = true;
  training.threads = 1;
  training.optimizer = AdamWOptions(1e-3);
  training.duration = options.duration;
  Series rounds, update, memory;
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    SHARDSTEP_ASSIGN_OR_RETURN(const TrainingResult result, RunTraining(training));
    rounds.push_back(Quantile(result.rounds, 0.5));
    SHARDSTEP_ASSIGN_OR_RETURN(
        const double seconds,
        UpdateSeconds(training.optimizer, kTensors, training.bytes / 4, /*threads=*/2, 9));
    update.push_back(seconds);
    // A server's half: parameters, two states, two contributions, the version before and the held
    // one.
    const double owned = 32.0 * kMi * (1 + 2 + 2 + 2);
    for (const int64_t peak : result.peaks) {
      memory.push_back((static_cast<double>(peak) - 150.0 * kMi) / owned);
    }
  }
  const std::string section = "whole synchronous step, 64 MiB, 2 servers, 2 trainers, AdamW";
  const double transfers =
      2 * kTensors *
      (1 / Median(rates.at("shardstep push")) + 1 / Median(rates.at("shardstep pull")));
  report->Add(section, "step", Median(rounds) * 1e3, "ms");
  report->Add(section, "its transfers at the measured rates", transfers * 1e3, "ms");
  report->Add(section, "its update at the measured rate", Median(update) * 1e3, "ms");
  report->Add(section, "share that is neither", 1 - (transfers + Median(update)) / Median(rounds),
              "");
  report->Bar("whole step / (transfers + update)", Report::Kind::kAtMost,
              Median(rounds) / (transfers + Median(update)), 1.25);
  report->Bar("peak of a server, less 150 MiB / what it holds", Report::Kind::kAtMost,
              Quantile(memory, 1), 1.15);
  return absl::OkStatus();
}

absl::Status MeasureLog(const MeasureOptions& options, Report* report) {
  if (options.bars_only) return absl::OkStatus();
  for (const int64_t bytes : {kKi, 4 * kMi}) {
    const std::string section = absl::StrCat("steps with and without a log, 3 servers, model of ",
                                             bytes == kKi ? "1 KiB" : "64 MiB");
    std::map<std::string, Series> rates;
    for (int repeat = 0; repeat < options.repeats; ++repeat) {
      for (const std::string durability : {"none", "wal"}) {
        TrainingOptions training = Small(1, options);
        training.synchronous = true;
        training.bytes = bytes;
        training.parameters = bytes == kKi ? 1 : 16;
        training.durability = durability;
        SHARDSTEP_ASSIGN_OR_RETURN(const TrainingResult result, RunTraining(training));
        rates[durability].push_back(result.steps_per_second);
      }
    }
    for (const auto& [durability, series] : rates) {
      report->Add(section, absl::StrCat("durability ", durability), Median(series), "steps/s");
    }
  }
  return absl::OkStatus();
}

absl::Status MeasureGrowth(const MeasureOptions& options, Report* report) {
  const std::string section = "growth";
  Series servers, trainers, parameters;
  const auto bytes_per_second = [&](int of_servers, int of_trainers) -> absl::StatusOr<double> {
    TrainingOptions training;
    training.servers = of_servers;
    training.trainers = of_trainers;
    training.synchronous = false;
    training.threads = 1;
    training.duration = options.duration;
    SHARDSTEP_ASSIGN_OR_RETURN(const TrainingResult result, RunTraining(training));
    return result.pushed_per_second;
  };
  const auto seconds_per_parameter = [&](int of_parameters) -> absl::StatusOr<double> {
    TrainingOptions training;
    training.parameters = of_parameters;
    training.bytes = 256;
    training.threads = 1;
    training.duration = options.duration;
    SHARDSTEP_ASSIGN_OR_RETURN(const TrainingResult result, RunTraining(training));
    return Quantile(result.rounds, 0.5) / of_parameters;
  };
  Series of_thousand, of_hundred_thousand;
  // A step of so many parameters takes its time, and is steady.
  const int repeats = options.bars_only ? 1 : options.repeats;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    SHARDSTEP_ASSIGN_OR_RETURN(const double one_server, bytes_per_second(1, 2));
    SHARDSTEP_ASSIGN_OR_RETURN(const double four_servers, bytes_per_second(4, 2));
    SHARDSTEP_ASSIGN_OR_RETURN(const double one_trainer, bytes_per_second(1, 1));
    SHARDSTEP_ASSIGN_OR_RETURN(const double many_trainers, bytes_per_second(1, 16));
    SHARDSTEP_ASSIGN_OR_RETURN(const double thousand, seconds_per_parameter(1000));
    SHARDSTEP_ASSIGN_OR_RETURN(const double hundred_thousand, seconds_per_parameter(100000));
    servers.push_back(four_servers / one_server);
    trainers.push_back(many_trainers / one_trainer);
    parameters.push_back(hundred_thousand / thousand);
    of_thousand.push_back(thousand * 1e6);
    of_hundred_thousand.push_back(hundred_thousand * 1e6);
  }
  report->Add(section, "1,000 parameters, step per parameter", Median(of_thousand), "us");
  report->Add(section, "100,000 parameters, step per parameter", Median(of_hundred_thousand), "us");
  report->Bar("bytes/s with 4 servers / 1", Report::Kind::kAtLeast, Median(servers), 0.85);
  report->Bar("bytes/s with 16 trainers / 1", Report::Kind::kAtLeast, Median(trainers), 0.85);
  report->Bar("step per parameter with 100,000 / 1,000", Report::Kind::kAtMost, Median(parameters),
              1.5);
  return absl::OkStatus();
}

absl::Status MeasureChecksums(const MeasureOptions& options, const std::string& program,
                              Report* report) {
  const auto push_rate = [&](const std::string& environment) -> absl::StatusOr<double> {
    SubjectRun run;
    run.subject = "shardstep";
    run.duration = options.duration;
    run.environment = environment;
    run.direction = "push";
    SHARDSTEP_ASSIGN_OR_RETURN(auto rates, RunSubject(program, run));
    return rates["push"];
  };
  const std::string without =
      absl::StrCat("LD_PRELOAD='", RunfilePath("tests/bench/libno_checksums.so"), "'");
  Series on, off, cost;
  // The cost is small: more repeats than elsewhere.
  for (int repeat = 0; repeat < options.repeats + 2; ++repeat) {
    SHARDSTEP_ASSIGN_OR_RETURN(on.emplace_back(), push_rate(""));
    SHARDSTEP_ASSIGN_OR_RETURN(off.emplace_back(), push_rate(without));
    cost.push_back(1 - on.back() / off.back());
  }
  report->Add("checksums, push of 1 MiB", "with", Median(on) * 8 * kMi / 1e9, "Gbit/s");
  report->Add("checksums, push of 1 MiB", "without", Median(off) * 8 * kMi / 1e9, "Gbit/s");
  report->Bar("share of CRC32C in a push", Report::Kind::kAtMost, Median(cost), 0.15);
  return absl::OkStatus();
}

}  // namespace shardstep
