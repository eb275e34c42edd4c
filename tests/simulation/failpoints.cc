#include "shardstep/tests/simulation/failpoints.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/server/faults.h"

namespace shardstep {
namespace {

constexpr absl::Duration kLongestDelay = absl::Seconds(2);

bool IsOfDisk(const std::string& point) {
  return absl::StartsWith(point, "log.") || absl::StartsWith(point, "base.") ||
         absl::StartsWith(point, "staged.") || absl::StartsWith(point, "catalog.") ||
         absl::StartsWith(point, "fences.");
}

}  // namespace

const char* NameOf(FaultKind kind) {
  switch (kind) {
    case FaultKind::kCrash:
      return "crash";
    case FaultKind::kError:
      return "error";
    case FaultKind::kDelay:
      return "delay";
  }
  return "";
}

Failpoints::Failpoints(Outside outside) : outside_(std::move(outside)) {
  faults::SetHook([this](const char* point, bool fallible) { return Pass(point, fallible); });
}

Failpoints::~Failpoints() { faults::SetHook(nullptr); }

void Failpoints::Arm(const std::string& point, int server, FaultKind kind, int skip) {
  armed_point_ = point;
  armed_server_ = server;
  armed_kind_ = kind;
  armed_skip_ = skip;
}

absl::Status Failpoints::Pass(const char* point, bool fallible) {
  Process* const process = outside_.simulation->current();
  const int server = process == nullptr ? -1 : outside_.rank_of(process);
  // Not a server's own doing, or a dead one's.
  if (server < 0 || !process->alive()) return absl::OkStatus();
  const auto& all = AllFailpoints();
  const auto known = std::find_if(all.begin(), all.end(), [&](const Failpoint& candidate) {
    return absl::string_view(candidate.name) == point;
  });
  if (known == all.end() || known->fallible != fallible ||
      (known->where == Failpoint::Where::kCoordinator && server != 0)) {
    outside_.simulation->Fail("wrong", absl::StrCat("failpoint \"", point, "\" of server ", server,
                                                    " is not like that in the list of all"));
    return absl::OkStatus();
  }
  ++passed_[{point, server}];
  Random& random = outside_.simulation->random();
  if (point == armed_point_ && server == armed_server_ && armed_skip_-- <= 0) {
    armed_point_.clear();
    return Fire(point, process, server, armed_kind_);
  }
  if (chance_ > 0 && random.Chance(chance_)) {
    FaultKind kind = static_cast<FaultKind>(random.Below(3));
    if (kind == FaultKind::kError && !fallible) kind = FaultKind::kDelay;
    return Fire(point, process, server, kind);
  }
  return absl::OkStatus();
}

absl::Status Failpoints::Fire(const std::string& point, Process* process, int server,
                              FaultKind kind) {
  ++fired_[{point, server, kind}];
  Random& random = outside_.simulation->random();
  outside_.simulation->Trace(absl::StrCat(process->name(), " ", NameOf(kind), " at ", point));
  switch (kind) {
    case FaultKind::kCrash:
      outside_.crash(process);
      return absl::OkStatus();
    case FaultKind::kDelay:
      outside_.simulation->HoldUp(process, random.Between(absl::Milliseconds(1), kLongestDelay));
      return absl::OkStatus();
    case FaultKind::kError:
      if (!IsOfDisk(point)) return absl::UnavailableError("an error that a test made");
      return random.Chance(0.5) ? absl::ResourceExhaustedError("a full disk that a test made")
                                : absl::InternalError("a broken disk that a test made");
  }
  return absl::OkStatus();
}

}  // namespace shardstep
