// How messages between peers travel: those too large for gRPC's limit are cut into pages, one
// behind the other in messages of the same type; small ones that wait go out together, since a
// message of gRPC costs the same whatever it holds.
//
// `Message` is PeerMessage or PeerReply: it has the fields `page` and `group`.
#ifndef SHARDSTEP_SERVER_RPC_PAGED_MESSAGES_H_
#define SHARDSTEP_SERVER_RPC_PAGED_MESSAGES_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/pages.h"

namespace shardstep {

// What to send for `messages`: each itself, or its pages.
template <typename Message>
std::vector<Message> ToPages(std::vector<Message> messages) {
  std::vector<Message> pages;
  pages.reserve(messages.size());
  for (Message& message : messages) {
    if (message.ByteSizeLong() <= kMaxPageBytes) {
      pages.push_back(std::move(message));
      continue;
    }
    const PagedMessage paged(message.SerializeAsString());
    for (uint32_t index = 0; index < paged.count(); ++index) {
      // Fails beyond 4 GiB, which no server can hold as a message; the other end then refuses.
      if (auto page = paged.page(index); page.ok()) {
        *pages.emplace_back().mutable_page() = *std::move(page);
      }
    }
  }
  return pages;
}

// Takes the first of `queue`, which is not empty, or as many of the first as may travel together.
template <typename Message>
Message TakeTogether(std::deque<Message>* queue) {
  Message first = std::move(queue->front());
  queue->pop_front();
  size_t bytes = first.ByteSizeLong();
  const auto fits = [&] {
    bytes += queue->front().ByteSizeLong();
    return !queue->front().has_page() && bytes <= kMaxPageBytes;
  };
  if (first.has_page() || queue->empty() || !fits()) return first;
  Message together;
  *together.add_group() = std::move(first);
  do {
    *together.add_group() = std::move(queue->front());
    queue->pop_front();
  } while (!queue->empty() && fits());
  return together;
}

// The receiving end of one stream. Confined to one thread at a time.
template <typename Message>
class PagedReader {
 public:
  // The messages that `received` is, brings or completes; none if pages are still to come.
  // INVALID_ARGUMENT: pages that do not fit together, or are no message; a group in a group.
  absl::StatusOr<std::vector<Message>> Take(Message received) {
    std::vector<Message> messages;
    if (received.group_size() == 0) {
      SHARDSTEP_ASSIGN_OR_RETURN(std::optional<Message> whole, TakeOne(std::move(received)));
      if (whole) messages.push_back(*std::move(whole));
      return messages;
    }
    for (Message& one : *received.mutable_group()) {
      if (one.has_page() || one.group_size() > 0) {
        return absl::InvalidArgumentError("a page or a group in a group");
      }
      messages.push_back(std::move(one));
    }
    return messages;
  }

 private:
  absl::StatusOr<std::optional<Message>> TakeOne(Message received) {
    if (!received.has_page()) return std::optional<Message>(std::move(received));
    if (received.page().index() != pages_.next()) {
      return absl::InvalidArgumentError("a page out of its order");
    }
    SHARDSTEP_RETURN_IF_ERROR(pages_.Add(received.page()));
    if (!pages_.complete()) return std::optional<Message>();
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string serialized, pages_.Take());
    Message whole;
    if (!whole.ParseFromString(serialized) || whole.has_page() || whole.group_size() > 0) {
      return absl::InvalidArgumentError("pages that are no message");
    }
    return std::optional<Message>(std::move(whole));
  }

  PageCollector pages_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_PAGED_MESSAGES_H_
