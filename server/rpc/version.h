// The version of the server, as Hello and --version tell it.
#ifndef SHARDSTEP_SERVER_RPC_VERSION_H_
#define SHARDSTEP_SERVER_RPC_VERSION_H_

namespace shardstep {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_VERSION_H_
