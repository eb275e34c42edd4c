#include "shardstep/tests/simulation/sim_operator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/tests/simulation/workload.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(3);
constexpr absl::Duration kRetryDelay = absl::Milliseconds(300);

}  // namespace

SimOperator::SimOperator(Outside outside) : outside_(std::move(outside)), process_("operator") {
  outside_.simulation->Start(&process_);
}

void SimOperator::Later(std::function<void()> task) {
  outside_.simulation->After(
      outside_.simulation->random().Between(absl::ZeroDuration(), kRetryDelay), &process_, "later",
      std::move(task));
}

void SimOperator::Delete(uint64_t lineage, std::function<void()> done) {
  v1::ProposeRequest request;
  request.mutable_header()->set_optimizer(Workload::kOptimizer);
  request.mutable_header()->set_lineage(lineage);
  request.mutable_delete_();
  outside_.network->Call<v1::ProposeRequest, v1::ProposeReply>(
      &process_, outside_.find(0), Method::kPropose, request, kTimeout,
      [this, lineage, done](const absl::StatusOr<v1::ProposeReply>& reply) {
        if (reply.ok() ? reply->has_done() : absl::IsNotFound(reply.status())) return done();
        if (reply.ok() || IsTransient(reply.status())) {
          return Later([this, lineage, done] { Delete(lineage, done); });
        }
        // All servers went back to a checkpoint meanwhile.
        if (ReasonOf(reply.status()) == v1::ROLLED_BACK) {
          return Delete(ErrorDetailOf(reply.status())->lineage(), done);
        }
        outside_.simulation->Fail("wrong", absl::StrCat("a deletion: ", reply.status().ToString()));
      });
}

void SimOperator::Checkpoint(std::function<void()> done) {
  AskCheckpoint(absl::StrCat("request ", ++requests_), std::move(done));
}

void SimOperator::AskCheckpoint(const std::string& request_id, std::function<void()> done) {
  v1::CheckpointRequest request;
  request.mutable_header()->set_optimizer(Workload::kOptimizer);
  request.mutable_header()->set_request_id(request_id);
  outside_.network->Call<v1::CheckpointRequest, v1::CheckpointReply>(
      &process_, outside_.find(0), Method::kCheckpoint, request, kTimeout,
      [this, request_id, done](const absl::StatusOr<v1::CheckpointReply>& reply) {
        if (reply.ok() && reply->has_done()) return done();
        // What stands, or what is not there yet, is no mistake of this one's.
        if (!reply.ok() && !IsTransient(reply.status())) return done();
        Later([this, request_id, done] { AskCheckpoint(request_id, done); });
      });
}

}  // namespace shardstep
