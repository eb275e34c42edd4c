// Outbox and Inbox: the two ends of one direction of a numbered message stream
// (proto/shardstep/v1/peer.proto). What is sent is kept until the other side says that it received
// it, so a stream may break at any moment.
#ifndef SHARDSTEP_SERVER_MESSAGE_LOG_H_
#define SHARDSTEP_SERVER_MESSAGE_LOG_H_

#include <cstdint>
#include <deque>
#include <utility>

namespace shardstep {

// `Message` has a field `number`. Not thread-safe.
template <typename Message>
class Outbox {
 public:
  // Numbers `message` and keeps it.
  const Message& Add(Message message) {
    message.set_number(++last_);
    kept_.push_back(std::move(message));
    return kept_.back();
  }
  // The other side has everything up to `number`.
  void Received(uint64_t number) {
    while (!kept_.empty() && kept_.front().number() <= number) kept_.pop_front();
  }
  // Ascending; what a new stream has to send after Received().
  const std::deque<Message>& kept() const { return kept_; }

 private:
  uint64_t last_ = 0;
  std::deque<Message> kept_;
};

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
