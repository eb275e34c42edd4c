#include "shardstep/tools/planted_fault/planted_fault.h"

namespace shardstep {

int* PlantedInSource() { return 0; }

}  // namespace shardstep
