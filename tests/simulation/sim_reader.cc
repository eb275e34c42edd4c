#include "shardstep/tests/simulation/sim_reader.h"

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/v1/shards.pb.h"

namespace shardstep {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(3);
constexpr absl::Duration kReadTimeout = absl::Seconds(5);
constexpr absl::Duration kRetryDelay = absl::Milliseconds(300);

}  // namespace

SimReader::SimReader(Outside outside) : outside_(std::move(outside)), process_("reader") {
  outside_.simulation->Start(&process_);
}

void SimReader::Read(Ledger* ledger, std::function<void(const Ledger::Read&)> read) {
  ledger_ = ledger;
  read_done_ = std::move(read);
  OpenSnapshot();
}

void SimReader::Stop() {
  ++attempt_;
  ledger_ = nullptr;
}

void SimReader::Again() {
  ++attempt_;
  outside_.simulation->After(
      outside_.simulation->random().Between(absl::ZeroDuration(), kRetryDelay), &process_,
      "read again", [this, attempt = attempt_] {
        if (attempt == attempt_) OpenSnapshot();
      });
}

void SimReader::OpenSnapshot() {
  read_ = Ledger::Read();
  floor_ = ledger_->FloorNow();
  v1::OpenSnapshotRequest request;
  request.mutable_header()->set_optimizer(Workload::kOptimizer);
  request.set_kind(v1::EVERYTHING);
  outside_.network->Call<v1::OpenSnapshotRequest, v1::OpenSnapshotReply>(
      &process_, outside_.find(0), Method::kOpenSnapshot, request, kCallTimeout,
      [this, attempt = attempt_](const absl::StatusOr<v1::OpenSnapshotReply>& reply) {
        if (attempt != attempt_) return;
        if (!reply.ok() || !reply->has_snapshot()) return Again();
        snapshot_ = reply->snapshot();
        Describe();
      });
}

void SimReader::Describe() {
  v1::DescribeRequest request;
  request.mutable_header()->set_optimizer(Workload::kOptimizer);
  request.set_snapshot(snapshot_.snapshot());
  outside_.network->Call<v1::DescribeRequest, v1::DescribeReply>(
      &process_, outside_.find(0), Method::kDescribe, request, kCallTimeout,
      [this, attempt = attempt_](const absl::StatusOr<v1::DescribeReply>& reply) {
        if (attempt != attempt_) return;
        if (!reply.ok()) return Again();
        description_.ParseFromString(reply->description().data());
        read_.lineage = snapshot_.lineage();
        read_.version = snapshot_.version();
        read_.ledger.resize(outside_.workload->elements(Workload::kLedger));
        read_.momentum.resize(outside_.workload->elements(Workload::kMomentum));
        ReadServer(/*server=*/0);
      });
}

void SimReader::ReadServer(int server) {
  if (server == outside_.workload->servers) return Finish();
  digest_ = FrameDigest();
  v1::ReadStateRequest request;
  request.mutable_header()->set_optimizer(Workload::kOptimizer);
  request.set_snapshot(snapshot_.snapshot());
  request.mutable_selector()->set_parameters(true);
  request.mutable_selector()->set_state(true);
  const uint64_t attempt = attempt_;
  const auto stream = std::make_shared<std::shared_ptr<SimStream>>();
  const auto end = [this, attempt, stream] {
    const auto ended = std::exchange(*stream, nullptr);
    if (ended != nullptr) ended->Break();
    return ended != nullptr && attempt == attempt_;
  };
  *stream = outside_.network->Open(&process_, outside_.find(server), StreamKind::kRead,
                                   {[this, attempt, end, stream, server](const std::string& bytes) {
                                      if (*stream == nullptr) return;
                                      if (attempt != attempt_) return static_cast<void>(end());
                                      const absl::StatusOr<bool> last = Take(server, bytes);
                                      if (last.ok() && !*last) return;
                                      if (!last.ok())
                                        outside_.simulation->Fail("torn", last.status().ToString());
                                      if (end()) ReadServer(server + 1);
                                    },
                                    [this, end](const absl::Status&) {
                                      if (end()) Again();
                                    }});
  (*stream)->Send(SimStream::kCaller, request.SerializeAsString());
  outside_.simulation->After(kReadTimeout, &process_, "read patience", [this, end] {
    if (end()) Again();
  });
}

absl::StatusOr<bool> SimReader::Take(int server, const std::string& bytes) {
  const absl::string_view whole = bytes;
  SHARDSTEP_ASSIGN_OR_RETURN(const FrameView frame, DecodeFrame({whole}));
  const v1::FrameHeader& header = frame.header;
  if (header.has_read_begin()) {
    if (header.read_begin().version() == snapshot_.version() &&
        header.read_begin().lineage() == snapshot_.lineage()) {
      return false;
    }
    return absl::DataLossError(absl::StrCat("server ", server, " holds version ",
                                            header.read_begin().version(), " in a snapshot of ",
                                            snapshot_.version()));
  }
  if (header.has_read_end()) {
    if (header.read_end().digest() == digest_.value()) return true;
    return absl::DataLossError(absl::StrCat("server ", server, ": frames are missing in a read"));
  }
  digest_.Add(frame.crc32c);
  PayloadReader payload(frame);
  for (const v1::Slice& slice : header.slices().slices()) {
    const v1::PlannedShard& shard = description_.plan().shards(slice.shard());
    const bool ledger = shard.parameter() == Workload::kLedger;
    std::vector<float>* into = ledger ? &read_.ledger : &read_.momentum;
    // The only state there is: the momentum buffer of "m".
    if (slice.tensor() != 0) into = &read_.buffer;
    if (slice.tensor() != 0) into->resize(read_.momentum.size());
    const uint64_t begin = shard.metadata().region().offsets(0) + slice.offset();
    if (slice.dtype() != v1::FLOAT32 || begin + slice.count() > into->size() ||
        payload.remaining() < slice.count() * sizeof(float)) {
      return absl::DataLossError(absl::StrCat("server ", server, ": a slice does not fit"));
    }
    payload.CopyTo(into->data() + begin, slice.count() * sizeof(float));
  }
  return false;
}

void SimReader::Finish() {
  v1::CloseSnapshotRequest request;
  request.mutable_header()->set_optimizer(Workload::kOptimizer);
  request.set_snapshot(snapshot_.snapshot());
  outside_.network->Call<v1::CloseSnapshotRequest, v1::CloseSnapshotReply>(
      &process_, outside_.find(0), Method::kCloseSnapshot, request, kCallTimeout,
      [](const auto&) {});
  Ledger* const ledger = std::exchange(ledger_, nullptr);
  ledger->CheckRead(read_, floor_);
  const auto done = std::exchange(read_done_, nullptr);
  done(read_);
}

}  // namespace shardstep
