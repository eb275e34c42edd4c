// shardctl: the fleet's operator on the command line.
#ifndef SHARDSTEP_CLIENT_CLI_SHARDCTL_H_
#define SHARDSTEP_CLIENT_CLI_SHARDCTL_H_

#include <ostream>
#include <string>
#include <vector>

namespace shardstep {

// Exit codes.
inline constexpr int kDone = 0;
inline constexpr int kRefused = 1;
inline constexpr int kUsage = 2;
inline constexpr int kFleetUnavailable = 3;

// Runs one command line, without the program's name. Results go to `out`, messages to `err`. Blocks
// until it is done; `fleet up` without --detach until SIGINT or SIGTERM. Not thread-safe: reads the
// environment, and `fleet` verbs handle signals of the process.
int RunShardctl(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err);

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_SHARDCTL_H_
