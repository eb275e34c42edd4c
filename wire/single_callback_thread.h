// The number of threads on which gRPC runs callbacks.
#ifndef SHARDSTEP_WIRE_SINGLE_CALLBACK_THREAD_H_
#define SHARDSTEP_WIRE_SINGLE_CALLBACK_THREAD_H_

#include <memory>

namespace shardstep {

// While it lives, gRPC runs this process's callbacks on one thread, where it would on two of a
// machine with one or two processors; on larger machines it changes nothing.
//
// gRPC has half as many such threads as processors, but two at least. One of them waits for the
// network while the other runs a callback, and is woken for each message that the callback sends:
// with two processors, of which the peer may need one, that costs more than the second thread
// brings (docs/adr/0018-one-callback-thread-on-two-processors.md).
//
// Make it in main, before any channel or server, and let it outlive them. A program decides this
// for itself, a library never for its host: no callback of the process may then wait for another.
class SingleCallbackThread {
 public:
  // Blocks until the other thread is parked.
  SingleCallbackThread();
  // Blocks until it is free again.
  ~SingleCallbackThread();

 private:
  class Parked;

  std::unique_ptr<Parked> parked_;  // null on a larger machine
};

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_SINGLE_CALLBACK_THREAD_H_
