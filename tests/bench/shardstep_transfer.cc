#include "shardstep/tests/bench/shardstep_transfer.h"

#include <algorithm>
#include <future>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/client/client.h"
#include "shardstep/client/sharded_optimizer.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/pusher.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"
#include "shardstep/tests/mini_fleet.h"

namespace shardstep {
namespace {

constexpr char kName[] = "transfer";

std::vector<NamedTensor> Named(TransferTensors* tensors) {
  std::vector<NamedTensor> named;
  for (size_t i = 0; i < tensors->size(); ++i) {
    named.emplace_back();
    named.back().name = absl::StrCat("t", i);
    named.back().value =
        MakeTensorView((*tensors)[i].data(), {static_cast<int64_t>((*tensors)[i].size())});
  }
  return named;
}

class ShardstepTransfer final : public TransferSubject {
 public:
  explicit ShardstepTransfer(const TransferWorkload& workload)
      : workload_(workload),
        gradients_(Gradients(workload)),
        named_gradients_(Named(&gradients_)) {}

  absl::Status Start();

  absl::StatusOr<double> Push(absl::Duration duration) override;
  absl::StatusOr<double> Pull(absl::Duration duration) override;
  absl::StatusOr<double> PushPull(absl::Duration duration) override;
  absl::Status Check() override;

 private:
  // By the first `trainers` of them.
  absl::StatusOr<double> PullBy(size_t trainers, absl::Duration duration);

  const TransferWorkload workload_;
  TransferTensors gradients_;
  const std::vector<NamedTensor> named_gradients_;
  std::vector<TransferTensors> into_;  // by trainer that pulls
  std::unique_ptr<MiniFleet> fleet_;
  std::vector<ShardedOptimizer> trainers_;
  std::unique_ptr<Pusher> pusher_;
  int stepped_ = 0;
};

absl::Status ShardstepTransfer::Start() {
  MiniFleetOptions options;
  options.servers = 1;
  options.threads = 2;
  fleet_ = MakeProcessFleet(options);
  SHARDSTEP_RETURN_IF_ERROR(fleet_->Start());
  TransferTensors start = InitialParameters(workload_);
  const int trainers = std::max(2, workload_.window / workload_.tensors);
  into_.assign(trainers, start);
  for (int rank = 0; rank < trainers; ++rank) {
    SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_->fleet_file()));
    SHARDSTEP_ASSIGN_OR_RETURN(
        ShardedOptimizer trainer,
        client.CreateOptimizer(kName, Named(&start), SGDOptions(kTransferLearningRate),
                               Asynchronous(std::numeric_limits<uint64_t>::max()), rank));
    trainers_.push_back(std::move(trainer));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(pusher_, Pusher::Make(fleet_->fleet_file(), kName, trainers));
  return absl::OkStatus();
}

absl::StatusOr<double> ShardstepTransfer::Push(absl::Duration duration) {
  const size_t tensors = named_gradients_.size();
  const size_t part = std::clamp<size_t>(workload_.window / 2, 1, tensors);
  const uint64_t open = std::max<uint64_t>(1, workload_.window / (2 * part));
  int64_t sent = 0;
  const absl::Time begin = absl::Now();
  do {
    for (size_t first = 0; first < tensors; first += part) {
      const size_t last = std::min(first + part, tensors);
      SHARDSTEP_RETURN_IF_ERROR(pusher_->Push(named_gradients_, first, last));
      SHARDSTEP_RETURN_IF_ERROR(pusher_->DropAcknowledged(open));
    }
    sent += static_cast<int64_t>(tensors);
  } while (absl::Now() < begin + duration);
  SHARDSTEP_RETURN_IF_ERROR(pusher_->DropAcknowledged(0));
  return static_cast<double>(sent) / absl::ToDoubleSeconds(absl::Now() - begin);
}

absl::StatusOr<double> ShardstepTransfer::Pull(absl::Duration duration) {
  return PullBy(trainers_.size(), duration);
}

absl::StatusOr<double> ShardstepTransfer::PullBy(size_t trainers, absl::Duration duration) {
  const absl::Time begin = absl::Now();
  std::vector<std::future<absl::StatusOr<int64_t>>> pulls;
  for (size_t i = 0; i < trainers; ++i) {
    pulls.push_back(std::async(std::launch::async, [&, i]() -> absl::StatusOr<int64_t> {
      const std::vector<NamedTensor> into = Named(&into_[i]);
      int64_t count = 0;
      // As in training, the step says which version is to be pulled, and holds it.
      SHARDSTEP_RETURN_IF_ERROR(trainers_[i].Step().status());
      do {
        SHARDSTEP_RETURN_IF_ERROR(trainers_[i].Pull(into).status());
        count += static_cast<int64_t>(into.size());
      } while (absl::Now() < begin + duration);
      return count;
    }));
  }
  int64_t pulled = 0;
  absl::Status status;
  for (auto& pull : pulls) {
    const absl::StatusOr<int64_t> count = pull.get();
    status.Update(count.status());
    if (count.ok()) pulled += *count;
  }
  SHARDSTEP_RETURN_IF_ERROR(status);
  return static_cast<double>(pulled) / absl::ToDoubleSeconds(absl::Now() - begin);
}

absl::StatusOr<double> ShardstepTransfer::PushPull(absl::Duration duration) {
  int64_t tensors = 0;
  const absl::Time begin = absl::Now();
  while (absl::Now() < begin + duration) {
    // Both of no duration: one round each.
    auto pulled = std::async(std::launch::async, [&] { return PullBy(1, absl::ZeroDuration()); });
    const absl::Status pushed = Push(absl::ZeroDuration()).status();
    SHARDSTEP_RETURN_IF_ERROR(pulled.get().status());
    SHARDSTEP_RETURN_IF_ERROR(pushed);
    tensors += workload_.tensors;
  }
  return static_cast<double>(tensors) / absl::ToDoubleSeconds(absl::Now() - begin);
}

absl::Status ShardstepTransfer::Check() {
  SHARDSTEP_RETURN_IF_ERROR(pusher_->Push(named_gradients_, 0, named_gradients_.size()));
  SHARDSTEP_RETURN_IF_ERROR(pusher_->Step());
  ++stepped_;
  for (size_t i = 0; i < trainers_.size(); ++i) {
    SHARDSTEP_RETURN_IF_ERROR(trainers_[i].Step().status());
    SHARDSTEP_RETURN_IF_ERROR(trainers_[i].Pull(Named(&into_[i])).status());
    SHARDSTEP_RETURN_IF_ERROR(CheckParameters(into_[i], stepped_, stepped_));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TransferSubject>> MakeShardstep(const TransferWorkload& workload) {
  auto subject = std::make_unique<ShardstepTransfer>(workload);
  SHARDSTEP_RETURN_IF_ERROR(subject->Start());
  return subject;
}

}  // namespace shardstep
