// The fleet file: the servers of one deployment and what they agree on. Servers, clients and
// shardctl read the same one:
//
//   {"name": "digits", "durability": "checkpoint", "checkpoints": "/mnt/checkpoints",
//    "servers": [{"address": "127.0.0.1:7400"}, {"address": "127.0.0.1:7401"}]}
//
// Plain data. Functions are safe from any thread; Load and Write block on the disk.
#ifndef SHARDSTEP_WIRE_FLEET_FILE_H_
#define SHARDSTEP_WIRE_FLEET_FILE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardstep {

inline constexpr size_t kMaxServers = 1024;

struct FleetFile {
  std::string name;
  // "none": memory only; "checkpoint", the default in the file: a version survives from the next
  // automatic checkpoint on; "wal": whatever was acknowledged survives, in a log of each server's
  // own.
  std::string durability = "none";
  // The root folder of checkpoints, which all servers see. Only durability "checkpoint" needs one.
  std::string checkpoints;
  // host:port, by server rank.
  std::vector<std::string> servers;

  // Reads `json`. `path` only names the file in messages. INVALID_ARGUMENT: not JSON, a key that is
  // missing, unknown or of another type, no server, an address that is not host:port or stands
  // twice.
  static absl::StatusOr<FleetFile> Parse(absl::string_view json, absl::string_view path);

  // NOT_FOUND if there is no such file, saying what to do; the system's error where it cannot be
  // read.
  static absl::StatusOr<FleetFile> Load(const std::string& path);

  // Replaces `path` as a whole: readers see the old or the new file. The system's error otherwise.
  absl::Status Write(const std::string& path) const;

  // What both ends of a connection compare: the CRC32C, in hexadecimal, of name, durability and
  // checkpoints, each behind its length in bytes and a colon, and the number of servers: of
  // "6:digits4:none0:2". Addresses do not count.
  std::string Hash() const;

  // The same in words, for the message of a mismatch: `name "digits", durability "none", no
  // checkpoints, 2 servers`.
  std::string Summary() const;
};

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_FLEET_FILE_H_
