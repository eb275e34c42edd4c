#include "shardstep/tests/bench/reference/reference_subject.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "shardstep/sharding/status_macros.h"

namespace shardstep {

ReferenceSubject::ReferenceSubject(const TransferWorkload& workload, bool sgd,
                                   std::unique_ptr<ReferenceProcess> server)
    : workload_(workload),
      sgd_(sgd),
      server_(std::move(server)),
      gradients_(Gradients(workload)),
      parameters_(InitialParameters(workload)) {}

absl::StatusOr<double> ReferenceSubject::Push(absl::Duration duration) {
  return Transfer(duration, /*push=*/true, /*pull=*/false);
}

absl::StatusOr<double> ReferenceSubject::Pull(absl::Duration duration) {
  return Transfer(duration, /*push=*/false, /*pull=*/true);
}

absl::StatusOr<double> ReferenceSubject::PushPull(absl::Duration duration) {
  return Transfer(duration, /*push=*/true, /*pull=*/true);
}

absl::StatusOr<double> ReferenceSubject::Transfer(absl::Duration duration, bool push, bool pull) {
  SHARDSTEP_RETURN_IF_ERROR(status_);
  // An element that no pull fills is then seen as missing.
  for (std::vector<float>& values : parameters_) {
    if (pull) std::fill(values.begin(), values.end(), std::numeric_limits<float>::quiet_NaN());
  }
  std::vector<TransferPart> parts;
  for (int stream = 0; stream < workload_.streams; ++stream) {
    if (push) {
      parts.emplace_back([=](Rounds& rounds) { return PushStream(stream, &rounds); });
    }
    if (pull) {
      parts.emplace_back([=](Rounds& rounds) { return PullStream(stream, &rounds); });
    }
  }
  const absl::StatusOr<RoundsResult> result = RunRounds(duration, push && pull, parts);
  status_ = result.status();
  SHARDSTEP_RETURN_IF_ERROR(status_);
  if (push) pushed_ += result->rounds;
  // Beside a push, a pull of the last round may come before or after it.
  if (pull) pulled_ = PulledSteps{push && sgd_ ? steps() - 1 : steps(), steps()};
  return static_cast<double>(result->rounds * workload_.tensors) / result->seconds;
}

absl::Status ReferenceSubject::Check() {
  SHARDSTEP_RETURN_IF_ERROR(status_);
  if (pulled_) {
    SHARDSTEP_RETURN_IF_ERROR(CheckParameters(parameters_, pulled_->fewest, pulled_->most));
  }
  if (!pulled_ || pulled_->fewest < steps()) {
    SHARDSTEP_RETURN_IF_ERROR(Pull(absl::ZeroDuration()).status());
    SHARDSTEP_RETURN_IF_ERROR(CheckParameters(parameters_, steps(), steps()));
  }
  return CheckPushed(pushed_);
}

}  // namespace shardstep
