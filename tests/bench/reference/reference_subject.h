// ReferenceSubject: what the subjects that the comparison holds shardstep against have in common:
// a server process, the client's tensors, rounds on a thread for each stream and direction, and how
// many steps the parameters must have seen.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_SUBJECT_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_SUBJECT_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/tests/bench/reference/reference_process.h"
#include "shardstep/tests/bench/reference/rounds.h"
#include "shardstep/tests/bench/reference/transfer.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {

// As TransferSubject. After a failed transfer what arrived is not known: Check returns its error.
class ReferenceSubject : public TransferSubject {
 public:
  absl::StatusOr<double> Push(absl::Duration duration) final;
  absl::StatusOr<double> Pull(absl::Duration duration) final;
  absl::StatusOr<double> PushPull(absl::Duration duration) final;
  // Pulls once more if anything was pushed since the last pull.
  absl::Status Check() final;

 protected:
  // `sgd`: whether the server applies what is pushed.
  ReferenceSubject(const TransferWorkload& workload, bool sgd,
                   std::unique_ptr<ReferenceProcess> server);

  // Transfer the tensors of one stream in the rounds that `rounds` gives. Called by one thread for
  // each stream and direction.
  virtual absl::Status PushStream(int stream, Rounds* rounds) = 0;
  virtual absl::Status PullStream(int stream, Rounds* rounds) = 0;
  // Whether the server has counted `rounds` rounds of pushes; where it does not say: OK.
  virtual absl::Status CheckPushed(int64_t rounds) const = 0;

  const TransferWorkload& workload() const { return workload_; }
  const ReferenceProcess& server() const { return *server_; }
  TransferTensors& gradients() { return gradients_; }
  TransferTensors& parameters() { return parameters_; }

 private:
  // How many steps the elements have seen that the last pull brought.
  struct PulledSteps {
    int64_t fewest = 0;
    int64_t most = 0;
  };

  absl::StatusOr<double> Transfer(absl::Duration duration, bool push, bool pull);
  int64_t steps() const { return sgd_ ? pushed_ : 0; }

  const TransferWorkload workload_;
  const bool sgd_;
  const std::unique_ptr<ReferenceProcess> server_;
  TransferTensors gradients_;
  TransferTensors parameters_;
  int64_t pushed_ = 0;  // rounds
  std::optional<PulledSteps> pulled_;
  absl::Status status_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_SUBJECT_H_
