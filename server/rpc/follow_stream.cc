#include "shardstep/server/rpc/follow_stream.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "shardstep/wire/status.h"

namespace shardstep {

FollowStream::FollowStream(std::shared_ptr<v1::Peer::Stub> stub, Events events)
    : stub_(std::move(stub)), events_(std::move(events)) {
  stub_->async()->Follow(&context_, this);
  AddHold();
}

FollowStream::~FollowStream() {
  MutexLock lock(&mutex_);
  while (!done_) done_changed_.Wait(&mutex_);
}

void FollowStream::Start() {
  StartRead(&incoming_);
  StartCall();
}

void FollowStream::Send(std::vector<v1::PeerMessage> messages) {
  std::vector<v1::PeerMessage> pages = ToPages(std::move(messages));
  {
    MutexLock lock(&mutex_);
    if (broken_) return;
    std::move(pages.begin(), pages.end(), std::back_inserter(queue_));
    if (writing_) return;
    writing_ = true;
    outgoing_ = TakeTogether(&queue_);
  }
  StartWrite(&outgoing_);
}

void FollowStream::OnReadDone(bool ok) {
  if (!ok) return Break();
  auto replies = reader_.Take(std::move(incoming_));
  if (!replies.ok()) {
    // The next stream begins anew.
    Cancel();
  } else {
    if (!replies->empty()) events_.on_replies(*std::move(replies));
  }
  StartRead(&incoming_);
}

void FollowStream::OnWriteDone(bool ok) {
  if (!ok) Break();
  bool again = false;
  {
    MutexLock lock(&mutex_);
    writing_ = again = !broken_ && !queue_.empty();
    if (again) {
      outgoing_ = TakeTogether(&queue_);
    } else if (!broken_) {
      return;
    }
  }
  if (again) {
    StartWrite(&outgoing_);
  } else {
    RemoveHold();
  }
}

void FollowStream::Break() {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(broken_, true)) return;
    queue_.clear();
    if (writing_) return;
  }
  RemoveHold();
}

void FollowStream::OnDone(const grpc::Status& status) {
  events_.on_end(FromGrpcStatus(status));
  MutexLock lock(&mutex_);
  done_ = true;
  done_changed_.NotifyAll();
}

}  // namespace shardstep
