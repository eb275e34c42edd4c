#include "shardstep/tests/bench/pusher.h"

#include <utility>

#include "absl/time/time.h"
#include "shardstep/client/grpc_connection.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/retry.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {

absl::StatusOr<std::unique_ptr<Pusher>> Pusher::Make(const std::string& fleet_file,
                                                     const std::string& optimizer,
                                                     int trainer_rank) {
  std::unique_ptr<Pusher> pusher(new Pusher());
  SHARDSTEP_ASSIGN_OR_RETURN(FleetFile fleet, FleetFile::Load(fleet_file));
  internal::RetryPolicy policy;
  auto budget = std::make_unique<internal::RetryBudget>();
  policy.budget = budget.get();
  auto connection = internal::MakeGrpcConnection(fleet, fleet_file, policy);
  pusher->core_ = std::make_shared<internal::ClientCore>(
      std::move(fleet), std::move(budget), std::move(connection), policy, absl::Minutes(1));
  const absl::Time deadline = pusher->core_->CallDeadline();
  SHARDSTEP_ASSIGN_OR_RETURN(pusher->session_, internal::Session::Open(pusher->core_, optimizer,
                                                                       trainer_rank, {}, deadline));
  SHARDSTEP_ASSIGN_OR_RETURN(
      internal::DescribedOptimizer described,
      internal::DescribeOptimizer(*pusher->core_, internal::HeaderFor(optimizer), 0, deadline));
  const auto index =
      std::make_shared<const internal::OptimizerIndex>(std::move(described.description));
  pusher->pushes_ =
      std::make_unique<internal::Pushes>(pusher->core_, pusher->session_->header(), index,
                                         internal::DeclaredRegions(index->parameters().size()));
  return pusher;
}

absl::Status Pusher::Push(const std::vector<NamedTensor>& tensors, size_t first, size_t last) {
  v1::Begin begin;
  begin.set_weight(1);
  SHARDSTEP_ASSIGN_OR_RETURN(const internal::Pushes::PushId push, pushes_->Begin(std::move(begin)));
  for (size_t i = first; i < last; ++i) {
    const ConstTensorView view = tensors[i].value;
    SHARDSTEP_RETURN_IF_ERROR(pushes_->Add(push, tensors[i].name, {view}, nullptr));
  }
  return pushes_->Finish(push);
}

absl::Status Pusher::AwaitAcks(uint64_t open) {
  if (pushes_->last() < pushes_->first_live() + open) return absl::OkStatus();
  return pushes_->AwaitAcks(pushes_->last() - open, core_->CallDeadline());
}

absl::Status Pusher::DropAcknowledged(uint64_t open) {
  SHARDSTEP_RETURN_IF_ERROR(AwaitAcks(open));
  if (pushes_->last() >= pushes_->first_live() + open) pushes_->Drop(pushes_->last() - open + 1);
  return absl::OkStatus();
}

absl::Status Pusher::Step() {
  v1::StepRequest request;
  *request.mutable_header() = session_->header();
  request.mutable_header()->set_sequence(++calls_);
  request.set_first_push(pushes_->first_live());
  request.set_last_push(pushes_->last());
  if (auto partial = pushes_->partial()) *request.mutable_partial() = *std::move(partial);
  SHARDSTEP_RETURN_IF_ERROR(AwaitAcks(0));
  const absl::StatusOr<v1::StepReply> reply =
      core_->connection().Step(request, core_->CallDeadline());
  SHARDSTEP_RETURN_IF_ERROR(reply.status());
  if (!reply->has_committed()) return absl::DeadlineExceededError("the step did not commit");
  pushes_->Drop(pushes_->last() + 1);
  return absl::OkStatus();
}

}  // namespace shardstep
