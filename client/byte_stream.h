// One streaming call of raw messages, as the SDK sees it: frames go out, acknowledgements come in,
// or the reverse.
#ifndef SHARDSTEP_CLIENT_BYTE_STREAM_H_
#define SHARDSTEP_CLIENT_BYTE_STREAM_H_

#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

namespace shardstep::internal {

// What happens on a stream. Called from the transport's threads, never under a lock of the stream,
// and never after OnClosed or after the stream's destructor has returned. Must not block.
class StreamListener {
 public:
  virtual ~StreamListener() = default;
  // The message of the last Send went out, or waits in the transport for the next: that may be
  // sent.
  virtual void OnSent() = 0;
  // One at a time: the next is not read before this returns.
  virtual void OnReceived(const grpc::ByteBuffer& message) = 0;
  // Asked after each OnReceived; false: nothing more is read before ByteStream::Resume. Must not
  // call the stream.
  virtual bool WantsMore() { return true; }
  // Asked after each OnReceived of a read (read_streams.h); true: the whole answer has come, and no
  // more of it is read. OnClosed follows.
  virtual bool Complete() { return false; }
  // The call is over; OK: the server ended it so. What was not sent by now never will be.
  virtual void OnClosed(const absl::Status& status) = 0;
};

// Thread-safe. Runs from its making on. The destructor cancels what still runs and blocks until
// OnClosed has returned; so it must not run inside a listener's method.
class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Takes `message`, whose memory is referred to until the transport lets go of it. One at a time
  // (see OnSent). After OnClosed nothing happens. `another_follows`: another is sent right after
  // OnSent, unless nobody waits for this one any more; the transport may keep it until then.
  virtual void Send(grpc::ByteBuffer&& message, bool another_follows) = 0;
  // No more messages come from this side.
  virtual void CloseSending() = 0;
  // Goes on reading where the listener wanted no more; else does nothing.
  virtual void Resume() {}
  // OnClosed follows soon, with CANCELLED unless the call was over.
  virtual void Cancel() = 0;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_BYTE_STREAM_H_
