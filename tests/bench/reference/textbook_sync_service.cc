#include "reference/textbook.grpc.pb.h"
#include "shardstep/tests/bench/reference/textbook_services.h"
#include "shardstep/wire/status.h"

namespace shardstep {
namespace {

class SyncService final : public bench::Textbook::Service {
 public:
  explicit SyncService(TextbookStore* store) : store_(*store) {}

  grpc::Status Push(grpc::ServerContext*,
                    grpc::ServerReaderWriter<bench::Ack, bench::Chunk>* stream) override {
    bench::Chunk chunk;
    bench::Ack ack;
    ack.set_tensors(1);
    while (stream->Read(&chunk)) {
      const absl::StatusOr<bool> last = store_.Take(chunk);
      if (!last.ok()) return ToGrpcStatus(last.status());
      if (*last && !stream->Write(ack)) break;
    }
    return grpc::Status::OK;
  }

  grpc::Status Pull(grpc::ServerContext*,
                    grpc::ServerReaderWriter<bench::Chunk, bench::Request>* stream) override {
    bench::Request request;
    bench::Chunk chunk;
    while (stream->Read(&request)) {
      for (int64_t offset = 0; offset < store_.bytes(); offset += kTextbookChunkBytes) {
        const absl::Status filled = store_.Fill(request, offset, &chunk);
        if (!filled.ok()) return ToGrpcStatus(filled);
        if (!stream->Write(chunk)) return grpc::Status::OK;
      }
    }
    return grpc::Status::OK;
  }

 private:
  TextbookStore& store_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeSyncTextbookService(TextbookStore* store) {
  return std::make_unique<SyncService>(store);
}

}  // namespace shardstep
