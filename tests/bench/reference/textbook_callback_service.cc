#include "absl/base/thread_annotations.h"
#include "reference/textbook.grpc.pb.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/tests/bench/reference/textbook_services.h"
#include "shardstep/wire/status.h"

namespace shardstep {
namespace {

// Deletes itself when the call is done.
class PushReactor final : public grpc::ServerBidiReactor<bench::Chunk, bench::Ack> {
 public:
  explicit PushReactor(TextbookStore* store) : store_(*store) { StartRead(&chunk_); }

  void OnReadDone(bool ok) override {
    if (!ok) return End(absl::OkStatus());
    const absl::StatusOr<bool> last = store_.Take(chunk_);
    if (!last.ok()) return End(last.status());
    if (*last) Acknowledge(1);
    StartRead(&chunk_);
  }

  void OnWriteDone(bool) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
    }
    Acknowledge(0);
  }

  void OnDone() override { delete this; }

 private:
  // `more` tensors; as soon as the message before is out.
  void Acknowledge(int more) {
    bool finish = false;
    {
      MutexLock lock(&mutex_);
      unacknowledged_ += more;
      if (writing_) return;
      finish = ended_;
      if (!finish && unacknowledged_ == 0) return;
      writing_ = true;
      ack_.set_tensors(unacknowledged_);
      unacknowledged_ = 0;
    }
    if (finish) {
      Finish(ToGrpcStatus(end_));
    } else {
      StartWrite(&ack_);
    }
  }

  // There is no further read. The call ends when no write is under way.
  void End(const absl::Status& status) {
    {
      MutexLock lock(&mutex_);
      ended_ = true;
      end_ = status;
    }
    Acknowledge(0);
  }

  TextbookStore& store_;
  bench::Chunk chunk_;
  bench::Ack ack_;
  absl::Status end_;

  Mutex mutex_;
  int unacknowledged_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;  // or finished
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

// One operation at a time: a request, then its chunks. Deletes itself when the call is done.
class PullReactor final : public grpc::ServerBidiReactor<bench::Request, bench::Chunk> {
 public:
  explicit PullReactor(TextbookStore* store) : store_(*store) { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    offset_ = 0;
    Write();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    offset_ += kTextbookChunkBytes;
    if (offset_ < store_.bytes()) {
      Write();
    } else {
      StartRead(&request_);
    }
  }

  void OnDone() override { delete this; }

 private:
  void Write() {
    const absl::Status filled = store_.Fill(request_, offset_, &chunk_);
    if (!filled.ok()) return Finish(ToGrpcStatus(filled));
    StartWrite(&chunk_);
  }

  TextbookStore& store_;
  bench::Request request_;
  bench::Chunk chunk_;
  int64_t offset_ = 0;
};

class CallbackService final : public bench::Textbook::CallbackService {
 public:
  explicit CallbackService(TextbookStore* store) : store_(store) {}

  grpc::ServerBidiReactor<bench::Chunk, bench::Ack>* Push(grpc::CallbackServerContext*) override {
    return new PushReactor(store_);
  }

  grpc::ServerBidiReactor<bench::Request, bench::Chunk>* Pull(
      grpc::CallbackServerContext*) override {
    return new PullReactor(store_);
  }

 private:
  TextbookStore* const store_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeCallbackTextbookService(TextbookStore* store) {
  return std::make_unique<CallbackService>(store);
}

}  // namespace shardstep
