// Durability: what survives the death of servers; one setting of the fleet.
#ifndef SHARDSTEP_SERVER_DURABILITY_H_
#define SHARDSTEP_SERVER_DURABILITY_H_

namespace shardstep {

enum class Durability {
  kNone,        // nothing
  kCheckpoint,  // what the last checkpoint contains; all servers return to it
  kWal,         // everything that was acknowledged
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_DURABILITY_H_
