// Push: the gradients that one session pushed at once to one server. Plain data: while it arrives
// it belongs to its stream; after End it is immutable.
#ifndef SHARDSTEP_SERVER_PUSH_H_
#define SHARDSTEP_SERVER_PUSH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "shardstep/server/assembly.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/memory_budget.h"

namespace shardstep {

struct Push {
  Push(std::shared_ptr<const Layout> layout, MemoryBudget* budget)
      : assembly(std::move(layout), budget) {}

  uint64_t session = 0;
  uint64_t sequence = 0;
  double weight = 1;
  uint64_t computed_on = 0;
  // It is here already, or consumed: its frames are checked and thrown away.
  bool repeat = false;
  // Bit i%8 of byte i/8: parameter i.
  std::string touched;
  // Of these, the parameters whose gradient consists of rows.
  std::string rows;
  Assembly assembly;
};

// Whether a bitmap of parameters, as Push's, has this one.
bool Touched(const std::string& bitmap, int parameter);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_PUSH_H_
