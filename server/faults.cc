#include "shardstep/server/faults.h"

#ifdef SHARDSTEP_FAULTS

#include <utility>

namespace shardstep::faults {
namespace {

Hook& TheHook() {
  static Hook* const hook = new Hook;
  return *hook;
}

std::string& TheBug() {
  static std::string* const bug = new std::string;
  return *bug;
}

}  // namespace

void SetHook(Hook hook) { TheHook() = std::move(hook); }

absl::Status Hit(const char* point, bool fallible) {
  const Hook& hook = TheHook();
  return hook ? hook(point, fallible) : absl::OkStatus();
}

void SetBug(std::string name) { TheBug() = std::move(name); }
bool Bug(const char* name) { return TheBug() == name; }

}  // namespace shardstep::faults

#endif
