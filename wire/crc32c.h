// CRC32C (Castagnoli, as in iSCSI), the checksum of frames, pages, fleet files and checkpoints.
// Pure functions, safe from any thread.
#ifndef SHARDSTEP_WIRE_CRC32C_H_
#define SHARDSTEP_WIRE_CRC32C_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace shardstep {

// The CRC32C of `data`; that of "123456789" is 0xe3069283, that of nothing is 0. Any length.
uint32_t Crc32c(absl::string_view data);

// The CRC32C of some bytes followed by `data`, given that of the bytes: ExtendCrc32c(Crc32c(a), b)
// == Crc32c(a + b).
uint32_t ExtendCrc32c(uint32_t crc, absl::string_view data);

// Eight lower-case hexadecimal digits: "e3069283".
std::string Crc32cHex(uint32_t crc);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_CRC32C_H_
