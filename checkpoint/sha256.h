// SHA-256 of bytes that come in pieces.
#ifndef SHARDSTEP_CHECKPOINT_SHA256_H_
#define SHARDSTEP_CHECKPOINT_SHA256_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardstep {

// Confined to one thread.
class Sha256 {
 public:
  Sha256();
  ~Sha256();

  void Update(absl::string_view data);
  // 64 lower-case hexadecimal digits. Once, last. INTERNAL: the cryptographic library failed.
  absl::StatusOr<std::string> Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;  // null after a failure
};

absl::StatusOr<std::string> Sha256Hex(absl::string_view data);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_SHA256_H_
