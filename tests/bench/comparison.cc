#include "shardstep/tests/bench/comparison.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/memory_reference.h"
#include "shardstep/tests/bench/reference/transfer.h"
#include "shardstep/tests/bench/subjects.h"
#include "shardstep/tests/bench/training.h"

namespace shardstep {
namespace {

// Raw TCP slower than this share of memcpy, whatever it does, is no reference.
constexpr double kGoodRawTcp = 0.35;

constexpr int64_t kSmall = 64 << 10;
constexpr int64_t kLarge = 1 << 20;

std::string SizeName(int64_t bytes) {
  return bytes < (1 << 20) ? absl::StrCat(bytes >> 10, " KiB") : absl::StrCat(bytes >> 20, " MiB");
}

class Comparison {
 public:
  Comparison(const ComparisonOptions& options, const MeasureOptions& measure, int64_t bytes)
      : options_(options), measure_(measure) {
    workload_.tensors = options.tensors;
    workload_.bytes = bytes;
    // Tensors that one packet could hold are in flight by more than a handful.
    workload_.window = bytes < kSmall ? 16 * options.window : options.window;
    workload_.streams = options.streams;
  }

  // One repeat.
  absl::Status Run() {
    // Of smaller tensors nothing else is judged.
    const bool only_transfers = measure_.bars_only && workload_.bytes < kLarge;
    if (!only_transfers) {
      const double memcpy_rate = MemcpyBytesPerSecond(workload_, measure_.duration / 4, 1);
      const double sgd_rate = SgdBytesPerSecond(workload_, measure_.duration / 4, 1);
      Note("memcpy", memcpy_rate / static_cast<double>(workload_.bytes));
      Note("SGD in memory", sgd_rate / static_cast<double>(workload_.bytes));
    }
    for (const std::string subject :
         {"raw TCP", "raw TCP SGD", "textbook sync", "textbook sync SGD", "textbook callback",
          "textbook callback SGD", "shardstep"}) {
      const bool textbook = absl::StartsWith(subject, "textbook");
      const bool sgd = absl::EndsWith(subject, "SGD");
      if (only_transfers && (textbook || sgd)) continue;
      if (measure_.bars_only && textbook && sgd) continue;
      SubjectRun run;
      run.subject = subject;
      run.workload = workload_;
      run.duration = measure_.duration;
      run.bars_only = measure_.bars_only;
      SHARDSTEP_ASSIGN_OR_RETURN(const auto measured, RunSubject(options_.program, run));
      const absl::string_view name = absl::StripSuffix(subject, " SGD");
      for (const auto& [direction, rate] : measured) Note(absl::StrCat(name, " ", direction), rate);
    }
    if (only_transfers) return absl::OkStatus();
    TrainingOptions training;
    training.trainers = options_.trainers;
    training.synchronous = false;
    training.parameters = workload_.tensors;
    training.bytes = workload_.bytes;
    training.duration = measure_.duration;
    SHARDSTEP_ASSIGN_OR_RETURN(const TrainingResult result, RunTraining(training));
    Note("shardstep push+SGD", result.pushed_per_second / static_cast<double>(workload_.bytes));
    return absl::OkStatus();
  }

  const Rates& rates() const { return rates_; }

 private:
  void Note(const std::string& name, double rate) { rates_[name].push_back(rate); }

  const ComparisonOptions& options_;
  const MeasureOptions& measure_;
  TransferWorkload workload_;
  Rates rates_;
};

void AddFigures(int64_t bytes, const Rates& rates, Report* report) {
  const bool small = bytes < kSmall;
  for (const auto& [name, values] : rates) {
    const double rate = Median(values);
    report->Add(absl::StrCat("transfers of tensors of ", SizeName(bytes)), name,
                small ? rate / 1e3 : rate * static_cast<double>(bytes) * 8 / 1e9,
                small ? "thousand tensors/s" : "Gbit/s");
  }
}

void AddBars(int64_t bytes, const Rates& rates, Report* report) {
  const auto at_least = [&](const std::string& what, const std::string& reference, double bar,
                            double aim = 0) {
    report->Bar(absl::StrCat(SizeName(bytes), " ", what, " / ", reference), Report::Kind::kAtLeast,
                RatioOf(rates, absl::StrCat("shardstep ", what), reference), bar, aim);
  };
  const auto better = [&rates](const std::string& what) {
    const std::string sync = absl::StrCat("textbook sync ", what);
    const std::string callback = absl::StrCat("textbook callback ", what);
    return Median(rates.at(sync)) > Median(rates.at(callback)) ? sync : callback;
  };
  if (bytes >= kLarge) {
    at_least("push", "raw TCP push", 0.72, 0.90);
    at_least("push", better("push"), 2.0);
    at_least("push+SGD", "raw TCP push+SGD", 0.52, 0.75);
    at_least("pull", "raw TCP pull", 0.64, 0.85);
    at_least("pull", better("pull"), 1.0);
  } else if (bytes >= kSmall) {
    at_least("push", "raw TCP push", 0.80);
    at_least("pull", "raw TCP pull", 0.80);
  } else {
    at_least("push", "raw TCP push", 1.7);
    at_least("pull", "raw TCP pull", 1.7);
  }
}

}  // namespace

double RatioOf(const Rates& rates, const std::string& a, const std::string& b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < rates.at(a).size(); ++i) {
    ratios.push_back(rates.at(a)[i] / rates.at(b)[i]);
  }
  return Median(std::move(ratios));
}

absl::StatusOr<std::map<int64_t, Rates>> Compare(const ComparisonOptions& options,
                                                 const MeasureOptions& measure, Report* report) {
  std::vector<std::pair<int64_t, Comparison>> comparisons;
  for (const int64_t bytes : options.sizes)
    comparisons.emplace_back(bytes, Comparison(options, measure, bytes));
  for (int repeat = 0; repeat < measure.repeats; ++repeat) {
    for (auto& [bytes, comparison] : comparisons) SHARDSTEP_RETURN_IF_ERROR(comparison.Run());
  }
  std::map<int64_t, Rates> rates;
  for (const auto& [bytes, comparison] : comparisons) {
    rates[bytes] = comparison.rates();
    AddFigures(bytes, comparison.rates(), report);
    AddBars(bytes, comparison.rates(), report);
    if (bytes != (4 << 20)) continue;
    double share = 0;
    for (const std::string direction : {"raw TCP push", "raw TCP push+SGD", "raw TCP pull"}) {
      share = std::max(share, RatioOf(comparison.rates(), direction, "memcpy"));
    }
    if (share < kGoodRawTcp) {
      report->Void(absl::StrCat("raw TCP's fastest direction reached ", share,
                                " of memcpy at 4 MiB, expected ", kGoodRawTcp));
    }
  }
  return rates;
}

}  // namespace shardstep
