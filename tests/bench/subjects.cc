#include "shardstep/tests/bench/subjects.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/raw_tcp.h"
#include "shardstep/tests/bench/reference/textbook.h"
#include "shardstep/tests/bench/shardstep_transfer.h"
#include "shardstep/wire/allocator.h"
#include "shardstep/wire/single_callback_thread.h"

namespace shardstep {
namespace {

using Direction = absl::StatusOr<double> (TransferSubject::*)(absl::Duration);
using Directions = std::vector<std::pair<std::string, Direction>>;

absl::StatusOr<std::unique_ptr<TransferSubject>> MakeSubject(absl::string_view name,
                                                             const TransferWorkload& workload) {
  const bool sgd = absl::ConsumeSuffix(&name, " SGD");
  if (name == "shardstep") return MakeShardstep(workload);
  if (name == "raw TCP") return MakeRawTcp(workload, sgd);
  if (name == "textbook sync") return MakeTextbook(workload, /*callbacks=*/false, sgd);
  if (name == "textbook callback") return MakeTextbook(workload, /*callbacks=*/true, sgd);
  return absl::InvalidArgumentError(absl::StrCat("no subject is called \"", name, "\""));
}

Directions DirectionsOf(const std::string& subject, bool bars_only) {
  const bool sgd = absl::EndsWith(subject, " SGD");
  Directions directions = {{sgd ? "push+SGD" : "push", &TransferSubject::Push}};
  if (!sgd) directions.emplace_back("pull", &TransferSubject::Pull);
  if (!bars_only && (subject == "shardstep" || subject == "raw TCP SGD")) {
    directions.emplace_back("push+pull", &TransferSubject::PushPull);
  }
  return directions;
}

}  // namespace

absl::Status PrintSubject(const SubjectRun& run) {
  std::optional<SingleCallbackThread> single;
  if (run.subject == "shardstep") {
    ConfigureAllocator();
    single.emplace();
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<TransferSubject> subject,
                             MakeSubject(run.subject, run.workload));
  for (const auto& [name, direction] : DirectionsOf(run.subject, run.bars_only)) {
    if (!run.direction.empty() && run.direction != name) continue;
    SHARDSTEP_RETURN_IF_ERROR((subject.get()->*direction)(run.warm_up).status());
    SHARDSTEP_ASSIGN_OR_RETURN(const double rate, (subject.get()->*direction)(run.duration));
    std::printf("%s %.7g\n", name.c_str(), rate);
  }
  return subject->Check();
}

absl::StatusOr<std::map<std::string, double>> RunSubject(const std::string& program,
                                                         const SubjectRun& run) {
  const std::string command =
      absl::StrCat(run.environment, " '", program, "' --subject '", run.subject, "' --tensors ",
                   run.workload.tensors, " --sizes ", run.workload.bytes, " --window ",
                   run.workload.window, " --streams ", run.workload.streams, " --seconds ",
                   absl::ToDoubleSeconds(run.duration), run.bars_only ? " --quick" : "",
                   run.direction.empty() ? "" : absl::StrCat(" --direction ", run.direction));
  FILE* const child = popen(command.c_str(), "r");
  if (child == nullptr) return absl::UnavailableError(absl::StrCat("cannot run ", command));
  std::map<std::string, double> rates;
  char line[128];
  while (std::fgets(line, sizeof(line), child) != nullptr) {
    char name[32];
    double rate = 0;
    if (std::sscanf(line, "%31s %lf", name, &rate) == 2) rates[name] = rate;
  }
  if (pclose(child) != 0) return absl::UnavailableError(absl::StrCat("failed: ", command));
  return rates;
}

}  // namespace shardstep
