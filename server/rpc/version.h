// The version of the server, as Hello and --version tell it.
#ifndef SHARDSTEP_SERVER_RPC_VERSION_H_
#define SHARDSTEP_SERVER_RPC_VERSION_H_

#include "absl/strings/string_view.h"

namespace shardstep {

inline constexpr absl::string_view kVersion = "0.1.0";

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_VERSION_H_
