// Messages between peers that are too large for gRPC's limit: cut into pages, which travel one
// behind the other in messages of the same type, and put together at the other end.
//
// `Message` is PeerMessage or PeerReply: it has a field `page`.
#ifndef SHARDSTEP_SERVER_RPC_PAGED_MESSAGES_H_
#define SHARDSTEP_SERVER_RPC_PAGED_MESSAGES_H_

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/pages.h"

namespace shardstep {

// What to send for `message`: itself, or its pages.
template <typename Message>
std::vector<Message> ToPages(Message message) {
  std::vector<Message> pages;
  if (message.ByteSizeLong() <= kMaxPageBytes) {
    pages.push_back(std::move(message));
    return pages;
  }
  const PagedMessage paged(message.SerializeAsString());
  for (uint32_t index = 0; index < paged.count(); ++index) {
    // Fails beyond 4 GiB, which no server can hold as a message; the other end then refuses.
    if (auto page = paged.page(index); page.ok()) {
      *pages.emplace_back().mutable_page() = *std::move(page);
    }
  }
  return pages;
}

// The receiving end of one stream. Confined to one thread at a time.
template <typename Message>
class PagedReader {
 public:
  // The message that `received` is, or completes; nullopt if pages of it are still to come.
  // INVALID_ARGUMENT: pages that do not fit together, or are no message.
  absl::StatusOr<std::optional<Message>> Take(Message received) {
    if (!received.has_page()) return std::optional<Message>(std::move(received));
    if (received.page().index() != pages_.next()) {
      return absl::InvalidArgumentError("a page out of its order");
    }
    SHARDSTEP_RETURN_IF_ERROR(pages_.Add(received.page()));
    if (!pages_.complete()) return std::optional<Message>();
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string serialized, pages_.Take());
    Message whole;
    if (!whole.ParseFromString(serialized) || whole.has_page()) {
      return absl::InvalidArgumentError("pages that are no message");
    }
    return std::optional<Message>(std::move(whole));
  }

 private:
  PageCollector pages_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_PAGED_MESSAGES_H_
