// Pages: a serialized message that is too large for one call, cut and put together again (v1.Page).
// Bounded against whatever a peer declares. Objects are confined to one thread at a time, except
// that a PagedMessage, once made, may be read from any.
#ifndef SHARDSTEP_WIRE_PAGES_H_
#define SHARDSTEP_WIRE_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/v1/common.pb.h"
#include "shardstep/wire/limits.h"

namespace shardstep {

// Page.digest of `whole`: its CRC32C and its length, "e3069283-9".
std::string PageDigest(absl::string_view whole);

// The sender's side: owns the serialized message, makes one page after the other.
class PagedMessage {
 public:
  PagedMessage() : PagedMessage(std::string()) {}
  explicit PagedMessage(std::string serialized);

  const std::string& digest() const { return digest_; }
  const std::string& serialized() const { return serialized_; }
  // At least 1; an empty message is one empty page.
  uint32_t count() const;
  // Page `index`. INVALID_ARGUMENT if there is no such page, or the message is too large for
  // kMaxPages.
  absl::StatusOr<v1::Page> page(uint32_t index) const;

 private:
  std::string serialized_;
  std::string digest_;
};

// The receiver's side. Takes pages in their order, and ignores those it has and those that come too
// early: whoever asks for next() makes progress, with any number of senders of the same message.
class PageCollector {
 public:
  // Memory is taken as pages arrive, `max_bytes` at most.
  explicit PageCollector(size_t max_bytes = kMaxPagedBytes) : max_bytes_(max_bytes) {}

  // INVALID_ARGUMENT, and nothing changed: an impossible page, one of another message than the
  // first page's, a message above max_bytes.
  absl::Status Add(const v1::Page& page);

  // Of the first page that was taken; empty before.
  const std::string& digest() const { return digest_; }
  // The page to add next.
  uint32_t next() const { return next_; }
  bool complete() const { return count_ > 0 && next_ == count_; }

  // The whole message, once complete; the collector is as new afterwards. INVALID_ARGUMENT:
  // incomplete (nothing changes), or the bytes are not those of the digest.
  absl::StatusOr<std::string> Take();

 private:
  size_t max_bytes_;
  std::string digest_;
  uint32_t count_ = 0;
  uint32_t next_ = 0;
  std::string whole_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_PAGES_H_
