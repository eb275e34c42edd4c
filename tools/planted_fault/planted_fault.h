// One fault for clang-tidy in a header, one in the source: see BUILD.
#ifndef SHARDSTEP_TOOLS_PLANTED_FAULT_PLANTED_FAULT_H_
#define SHARDSTEP_TOOLS_PLANTED_FAULT_PLANTED_FAULT_H_

namespace shardstep {

inline int* PlantedInHeader() { return 0; }
int* PlantedInSource();

}  // namespace shardstep

#endif  // SHARDSTEP_TOOLS_PLANTED_FAULT_PLANTED_FAULT_H_
