// Outbox and Inbox: the two ends of one direction of a numbered message stream
// (proto/shardstep/v1/peer.proto). What is sent is kept until the other side says that it received
// it, so a stream may break at any moment. What is added while one task runs leaves together, at
// its end: a message between servers costs the same whatever it holds.
#ifndef SHARDSTEP_SERVER_MESSAGE_LOG_H_
#define SHARDSTEP_SERVER_MESSAGE_LOG_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

namespace shardstep {

// `Message` has a field `number`. Not thread-safe.
template <typename Message>
class Outbox {
 public:
  // Numbers `message` and keeps it.
  void Add(Message message) {
    message.set_number(++last_);
    kept_.push_back(std::move(message));
  }
  // The other side has everything up to `number`.
  void Received(uint64_t number) {
    while (!kept_.empty() && kept_.front().number() <= number) {
      kept_.pop_front();
      if (sent_ > 0) --sent_;
    }
  }
  // A new stream begins: everything kept is to be sent on it.
  void Rewind() { sent_ = 0; }
  // What is to be sent now, ascending. It stays kept.
  std::vector<Message> TakeUnsent() {
    std::vector<Message> unsent(kept_.begin() + static_cast<std::ptrdiff_t>(sent_), kept_.end());
    sent_ = kept_.size();
    return unsent;
  }

 private:
  uint64_t last_ = 0;
  std::deque<Message> kept_;
  size_t sent_ = 0;  // of kept_, the first ones
};

// Whether one of the messages has this body: what failpoints behind their sending ask.
template <typename Message>
bool HasBody(const std::vector<Message>& messages, typename Message::BodyCase body) {
  return std::any_of(messages.begin(), messages.end(),
                     [body](const Message& message) { return message.body_case() == body; });
}

class Inbox {
 public:
  // True for the next number; false for one that was here before or that skips some.
  bool Accept(uint64_t number) {
    if (number != last_ + 1) return false;
    last_ = number;
    return true;
  }
  uint64_t last() const { return last_; }

 private:
  uint64_t last_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_MESSAGE_LOG_H_
