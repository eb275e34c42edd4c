#include "shardstep/server/process_faults.h"

#ifdef SHARDSTEP_FAULTS

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/server/faults.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep::faults {
namespace {

constexpr absl::Duration kDelay = absl::Milliseconds(500);

struct Armed {
  std::string kind;
  uint64_t at = 0;
  uint64_t passed = 0;
};

struct Arms {
  Mutex mutex;
  std::map<std::string, Armed> by_point ABSL_GUARDED_BY(mutex);
};

absl::Status Pass(Arms* arms, const char* point) {
  std::string kind;
  {
    MutexLock lock(&arms->mutex);
    const auto armed = arms->by_point.find(point);
    if (armed == arms->by_point.end() || ++armed->second.passed != armed->second.at) {
      return absl::OkStatus();
    }
    kind = armed->second.kind;
  }
  if (kind == "crash") kill(getpid(), SIGKILL);
  if (kind == "delay") absl::SleepFor(kDelay);
  if (kind != "error") return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("failpoint ", point));
}

}  // namespace

absl::Status ConfigureFromEnvironment() {
  if (const char* bug = std::getenv("SHARDSTEP_BUG")) SetBug(bug);
  const char* const text = std::getenv("SHARDSTEP_FAILPOINTS");
  if (text == nullptr) return absl::OkStatus();
  const auto arms = std::make_shared<Arms>();
  for (const absl::string_view entry : absl::StrSplit(text, ';', absl::SkipEmpty())) {
    const std::vector<std::string> sides = absl::StrSplit(entry, '=');
    const std::vector<std::string> what =
        sides.size() == 2 ? std::vector<std::string>(absl::StrSplit(sides[1], '@'))
                          : std::vector<std::string>();
    Armed armed;
    if (what.size() != 2 || !absl::SimpleAtoi(what[1], &armed.at) ||
        (what[0] != "crash" && what[0] != "error" && what[0] != "delay")) {
      return absl::InvalidArgumentError(absl::StrCat("SHARDSTEP_FAILPOINTS: \"", entry,
                                                     "\", expected such as host.applied=crash@1"));
    }
    armed.kind = what[0];
    MutexLock lock(&arms->mutex);
    arms->by_point[sides[0]] = armed;
  }
  SetHook([arms](const char* point, bool) { return Pass(arms.get(), point); });
  return absl::OkStatus();
}

}  // namespace shardstep::faults

#endif
