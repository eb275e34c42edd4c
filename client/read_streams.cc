#include "shardstep/client/read_streams.h"

#include <utility>

#include "absl/status/status.h"
#include "shardstep/wire/byte_buffer.h"

namespace shardstep::internal {

// Its events are those of the read that it serves.
class ReadStreams::Call final : private StreamListener {
 public:
  // Counts itself in `open`.
  Call(StreamListener* reader, absl::Time now, std::atomic<int>* open)
      : started_(now), open_(*open), reader_(reader) {
    ++open_;
  }
  ~Call() override { --open_; }

  void Start(const StartCall& start) { stream_ = start(this); }

  // Serves another reader. False: the call may not.
  bool Serve(StreamListener* reader, absl::Time now) {
    MutexLock lock(&mutex_);
    if (spent_ || now >= started_ + kReadCallLifetime / 2) return false;
    reader_ = reader;
    sent_ = false;
    return true;
  }

  void Send(const v1::ReadStateRequest& request) {
    stream_->Send(SerializeToBuffer(request), /*another_follows=*/false);
  }
  void CloseSending() {
    {
      MutexLock lock(&mutex_);
      spent_ = true;
    }
    stream_->CloseSending();
  }
  void Resume() { stream_->Resume(); }
  void Cancel() {
    {
      MutexLock lock(&mutex_);
      spent_ = true;
    }
    stream_->Cancel();
  }

  // Blocks until the reader gets no more events; cancels the call if the read still runs. Returns
  // whether the call may serve another.
  bool Stop() {
    bool runs;
    {
      MutexLock lock(&mutex_);
      runs = reader_ != nullptr && !ending_;
    }
    if (runs) Cancel();
    MutexLock lock(&mutex_);
    while (reader_ != nullptr || !sent_) changed_.Wait(&mutex_);
    return !spent_;
  }

 private:
  // The transport may say so later than it gives the answer.
  void OnSent() override {
    {
      MutexLock lock(&mutex_);
      sent_ = true;
    }
    changed_.NotifyAll();
  }

  void OnReceived(const grpc::ByteBuffer& message) override {
    StreamListener* const reader = Reader();
    if (reader == nullptr) {
      // Nobody asked.
      MutexLock lock(&mutex_);
      spent_ = true;
      return;
    }
    reader->OnReceived(message);
    if (reader->Complete()) End(reader, absl::OkStatus());
  }

  bool WantsMore() override {
    StreamListener* const reader = Reader();
    return reader == nullptr || reader->WantsMore();
  }

  void OnClosed(const absl::Status& status) override {
    StreamListener* reader;
    {
      MutexLock lock(&mutex_);
      spent_ = true;
      sent_ = true;
      reader = reader_;
    }
    if (reader != nullptr) End(reader, status);
  }

  StreamListener* Reader() {
    MutexLock lock(&mutex_);
    return reader_;
  }

  void End(StreamListener* reader, const absl::Status& status) {
    {
      MutexLock lock(&mutex_);
      ending_ = true;
    }
    reader->OnClosed(status);
    MutexLock lock(&mutex_);
    ending_ = false;
    reader_ = nullptr;
    // Under the lock: Stop's caller may destroy the call.
    changed_.NotifyAll();
  }

  const absl::Time started_;
  std::atomic<int>& open_;

  Mutex mutex_;
  CondVar changed_;
  StreamListener* reader_ ABSL_GUARDED_BY(mutex_);  // null: idle
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;     // in the reader's OnClosed
  bool sent_ ABSL_GUARDED_BY(mutex_) = false;       // the reader's request
  bool spent_ ABSL_GUARDED_BY(mutex_) = false;      // serves no other reader

  // Last: its events use the members above.
  std::unique_ptr<ByteStream> stream_;
};

class ReadStreams::Read final : public ByteStream {
 public:
  Read(std::shared_ptr<ReadStreams> streams, std::unique_ptr<Call> call)
      : streams_(std::move(streams)), call_(std::move(call)) {}
  ~Read() override {
    if (call_->Stop()) streams_->Return(std::move(call_));
  }

  void Send(grpc::ByteBuffer&&, bool) override {}
  void CloseSending() override { call_->CloseSending(); }
  void Resume() override { call_->Resume(); }
  void Cancel() override { call_->Cancel(); }

 private:
  const std::shared_ptr<ReadStreams> streams_;
  std::unique_ptr<Call> call_;
};

ReadStreams::ReadStreams() = default;
ReadStreams::~ReadStreams() = default;

std::unique_ptr<ByteStream> ReadStreams::Start(const v1::ReadStateRequest& request,
                                               StreamListener* listener, absl::Time now,
                                               const StartCall& start) {
  std::unique_ptr<Call> call = TakeIdle();
  while (call != nullptr && !call->Serve(listener, now)) call = TakeIdle();
  if (call == nullptr) {
    call = std::make_unique<Call>(listener, now, &open_);
    call->Start(start);
  }
  call->Send(request);
  return std::make_unique<Read>(shared_from_this(), std::move(call));
}

std::unique_ptr<ReadStreams::Call> ReadStreams::TakeIdle() {
  MutexLock lock(&mutex_);
  if (idle_.empty()) return nullptr;
  std::unique_ptr<Call> call = std::move(idle_.back());
  idle_.pop_back();
  return call;
}

void ReadStreams::Return(std::unique_ptr<Call> call) {
  if (open_ > kMaxKeptReadCalls) return;
  MutexLock lock(&mutex_);
  idle_.push_back(std::move(call));
}

}  // namespace shardstep::internal
