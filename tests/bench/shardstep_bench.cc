// What shardstep moves and steps per second beside raw TCP, raw memory and textbook gRPC, in one
// run on one machine: real server processes, real clients, every element checked.
//
//   bazel build //tests/bench:shardstep_bench && bazel-bin/tests/bench/shardstep_bench
//       [--check] [--quick] [--json FILE] [--only PART] [--window N] [--streams N]
//
// Prints figures (medians of the repeats) and bars. With --check a bar that is missed, or a
// reference that is no good one, makes the exit code 1, and the last line says which.
// docs/performance.md says how to read it and keeps the last full table.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/comparison.h"
#include "shardstep/tests/bench/measure.h"
#include "shardstep/tests/bench/own_network.h"
#include "shardstep/tests/bench/report.h"
#include "shardstep/tests/bench/step_figures.h"
#include "shardstep/tests/bench/subjects.h"
#include "shardstep/wire/allocator.h"
#include "shardstep/wire/single_callback_thread.h"

namespace shardstep {
namespace {

// Short runs are noisier: 'at least' bars are multiplied by it, 'at most' bars divided.
constexpr double kQuickSlack = 0.85;

struct Flags {
  bool check = false;
  bool quick = false;
  double seconds = 0;
  std::string json;
  std::string subject;
  std::string direction;
  std::vector<std::string> only;
  ComparisonOptions comparison;
  MeasureOptions measure;
};

bool Wants(const Flags& flags, const std::string& part) {
  return flags.only.empty() ||
         std::find(flags.only.begin(), flags.only.end(), part) != flags.only.end();
}

absl::Status Measure(const Flags& flags, Report* report) {
  std::optional<SingleCallbackThread> single(std::in_place);
  std::map<int64_t, Rates> rates;
  // A whole step is judged by the transfers' rates.
  if (Wants(flags, "transfers") || Wants(flags, "whole-step")) {
    SHARDSTEP_ASSIGN_OR_RETURN(rates, Compare(flags.comparison, flags.measure, report));
  }
  if (Wants(flags, "latencies")) {
    SHARDSTEP_RETURN_IF_ERROR(MeasureLatencies(flags.measure, report));
  }
  if (Wants(flags, "asynchronous")) {
    SHARDSTEP_RETURN_IF_ERROR(MeasureAsynchronous(flags.measure, report));
  }
  if (Wants(flags, "whole-step")) {
    // client/client.h advises programs with large synchronous steps against it.
    single.reset();
    SHARDSTEP_RETURN_IF_ERROR(MeasureWholeStep(flags.measure, rates.at(4 << 20), report));
    single.emplace();
  }
  if (Wants(flags, "log")) SHARDSTEP_RETURN_IF_ERROR(MeasureLog(flags.measure, report));
  if (Wants(flags, "growth")) SHARDSTEP_RETURN_IF_ERROR(MeasureGrowth(flags.measure, report));
  if (Wants(flags, "checksums")) {
    SHARDSTEP_RETURN_IF_ERROR(MeasureChecksums(flags.measure, flags.comparison.program, report));
  }
  return absl::OkStatus();
}

int Run(Flags flags) {
  if (!flags.subject.empty()) {
    SubjectRun run;
    run.subject = flags.subject;
    run.workload.tensors = flags.comparison.tensors;
    run.workload.bytes = flags.comparison.sizes.front();
    run.workload.window = flags.comparison.window;
    run.workload.streams = flags.comparison.streams;
    run.duration = absl::Seconds(flags.seconds);
    run.bars_only = flags.quick;
    run.direction = flags.direction;
    Must(PrintSubject(run));
    return 0;
  }
  EnterOwnNetwork();
  ConfigureAllocator();
  flags.comparison.program = std::filesystem::read_symlink("/proc/self/exe").string();
  const double seconds = flags.seconds > 0 ? flags.seconds : flags.quick ? 0.4 : 3;
  flags.measure.duration = absl::Seconds(seconds);
  flags.measure.bars_only = flags.quick;
  Report report(flags.quick ? kQuickSlack : 1);
  Must(Measure(flags, &report));
  std::fputs(report.Table().c_str(), stdout);
  if (!flags.json.empty()) std::ofstream(flags.json) << report.Json() << "\n";
  if (!flags.check) return 0;
  const std::string missed = report.Missed();
  std::printf("%s\n", missed.empty() ? "all bars hold" : missed.c_str());
  return missed.empty() ? 0 : 1;
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::Flags flags;
  CLI::App app("Transfers and steps beside raw TCP, raw memory and textbook gRPC.");
  app.add_flag("--check", flags.check, "Fail where a bar is missed");
  app.add_flag("--quick", flags.quick,
               "Under three minutes: only what there are bars for, wider ones");
  app.add_option("--json", flags.json, "Write figures and bars to this file");
  app.add_option("--only", flags.only,
                 "Parts: transfers, latencies, asynchronous, whole-step, log, growth, checksums");
  app.add_option("--sizes", flags.comparison.sizes, "Bytes of a tensor, in the transfers")
      ->capture_default_str();
  app.add_option("--window", flags.comparison.window, "Tensors in flight")->capture_default_str();
  app.add_option("--streams", flags.comparison.streams, "Connections of the references")
      ->capture_default_str();
  app.add_option("--trainers", flags.comparison.trainers, "Whose steps are in flight together")
      ->capture_default_str();
  app.add_option("--repeats", flags.measure.repeats)->capture_default_str();
  app.add_option("--seconds", flags.seconds, "Of each measurement");
  app.add_option("--tensors", flags.comparison.tensors)->capture_default_str();
  app.add_option("--direction", flags.direction)->group("");
  app.add_option("--subject", flags.subject, "Only this one, as a child of the comparison")
      ->group("");
  CLI11_PARSE(app, argc, argv);
  return shardstep::Run(flags);
}
