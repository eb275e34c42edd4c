// Kills servers or trainers at random moments, and proves that nothing that was acknowledged is
// lost, nothing is applied twice, and the parameters are those of a run in which nothing happened.
//
//   bazel-bin/tests/faults/kill_test --kills=300 --seed=1 [--victims=trainers] [--coupled]
//
// Exits with 1 unless its last line says so and every bound holds.
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/tests/faults/kill_run.h"

namespace shardstep {
namespace {

constexpr absl::Duration kResume = absl::Seconds(5);

absl::Duration Percentile(std::vector<absl::Duration> values, double part) {
  if (values.empty()) return absl::ZeroDuration();
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(part * values.size()))];
}

bool Print(const KillReport& report, const char* victims, absl::Duration took) {
  const absl::Duration p99 = Percentile(report.resumed, 0.99);
  std::printf("%d kills of %s (each: %s; all at once: %d), version %llu, in %.0f s\n", report.kills,
              victims, absl::StrJoin(report.kills_of, ", ").c_str(), report.kills_of_all,
              static_cast<unsigned long long>(report.verdict.version), absl::ToDoubleSeconds(took));
  std::printf("fell in: %s\n",
              absl::StrJoin(report.moments, ", ", absl::PairFormatter(" ")).c_str());
  std::printf("trainers resumed after %.2f s (p50), %.2f s (p99), %.2f s (longest)\n",
              absl::ToDoubleSeconds(Percentile(report.resumed, 0.5)), absl::ToDoubleSeconds(p99),
              absl::ToDoubleSeconds(Percentile(report.resumed, 1)));
  std::printf("slowest call: %lld ms behind its deadline\n",
              static_cast<long long>(report.verdict.overdue_ms));
  // Under that many, chance may leave a victim out.
  bool fair = true;
  for (const int kills : report.kills_of) {
    fair = fair && (report.kills < 20 || 5 * kills >= report.kills);
  }
  std::printf("kills=%d %s\n", report.kills, report.verdict.ToString().c_str());
  return report.verdict.good() && p99 <= kResume && report.verdict.overdue_ms == 0 && fair;
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  CLI::App app("Kills servers or trainers of a fleet with durability wal.", "kill_test");
  shardstep::KillRunOptions options;
  std::string victims = "servers";
  app.add_option("--kills", options.kills, "How many")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of who is killed when")->capture_default_str();
  app.add_option("--victims", victims, "servers or trainers")
      ->check(CLI::IsMember({"servers", "trainers"}))
      ->capture_default_str();
  app.add_flag("--coupled", options.coupled, "An optimizer that needs sums over all servers");
  CLI11_PARSE(app, argc, argv);
  options.trainers = victims == "trainers";
  std::printf("--kills=%d --seed=%llu --victims=%s%s\n", options.kills,
              static_cast<unsigned long long>(options.seed), victims.c_str(),
              options.coupled ? " --coupled" : "");
  std::fflush(stdout);

  std::string directory;
  if (getenv("TEST_TMPDIR") == nullptr) {
    directory = (std::filesystem::temp_directory_path() / "kill_test-XXXXXX").string();
    if (mkdtemp(directory.data()) == nullptr) {
      std::fprintf(stderr, "cannot make a folder such as \"%s\"\n", directory.c_str());
      return 1;
    }
    setenv("TEST_TMPDIR", directory.c_str(), 1);
  }
  const absl::Time begun = absl::Now();
  bool good = false;
  {
    shardstep::KillRun run(options);
    const absl::Status status = run.Run();
    if (!status.ok()) std::printf("%s\n", status.ToString().c_str());
    good = shardstep::Print(run.report(), victims.c_str(), absl::Now() - begun) && status.ok();
  }
  if (good && !directory.empty()) std::filesystem::remove_all(directory);
  if (!good && !directory.empty()) std::printf("logs are in \"%s\"\n", directory.c_str());
  return good ? 0 : 1;
}
