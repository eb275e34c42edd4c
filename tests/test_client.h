// What tests of the client have in common: tensors with memory of their own, and whole steps.
#ifndef SHARDSTEP_TESTS_TEST_CLIENT_H_
#define SHARDSTEP_TESTS_TEST_CLIENT_H_

#include <cstdint>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "shardstep/client/client.h"
#include "shardstep/client/sharded_optimizer.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

// Named tensors of one dtype, in order. Views point into it: it stays where it is while they are in
// use.
template <typename T>
class TensorSet {
 public:
  TensorSet() = default;
  TensorSet(TensorSet&&) = default;
  TensorSet& operator=(TensorSet&&) = default;

  TensorSet& Add(const std::string& name, Shape sizes, T value = 0,
                 std::optional<ShardingSpec> spec = std::nullopt) {
    const int64_t elements = NumElements(sizes).value();
    values_[name] = std::vector<T>(elements, value);
    named_.push_back({});
    named_.back().name = name;
    named_.back().value = MakeTensorView(values_[name].data(), std::move(sizes));
    named_.back().spec = std::move(spec);
    return *this;
  }

  // In the order of Add.
  const std::vector<NamedTensor>& named() const { return named_; }
  absl::Span<T> operator[](const std::string& name) { return absl::MakeSpan(values_.at(name)); }

  // The same tensors with memory of their own, all elements `value`.
  TensorSet Like(T value = 0) const {
    TensorSet other;
    for (const NamedTensor& tensor : named_) {
      other.Add(tensor.name, tensor.value.sizes, value, tensor.spec);
    }
    return other;
  }

 private:
  std::map<std::string, std::vector<T>> values_;
  std::vector<NamedTensor> named_;
};

using Floats = TensorSet<float>;

// Pushes all of `gradients`, which must not change until the step.
template <typename T>
absl::Status Push(ShardedOptimizer& optimizer, const TensorSet<T>& gradients,
                  const PushOptions& options = {}) {
  SHARDSTEP_ASSIGN_OR_RETURN(GradientPush push, optimizer.StartPush(options));
  for (const NamedTensor& gradient : gradients.named()) {
    SHARDSTEP_RETURN_IF_ERROR(push.Add(gradient.name, gradient.value));
  }
  return push.Finish();
}

template <typename T>
absl::StatusOr<StepResult> PushAndStep(ShardedOptimizer& optimizer, const TensorSet<T>& gradients,
                                       const StepOptions& options = {}) {
  SHARDSTEP_RETURN_IF_ERROR(Push(optimizer, gradients));
  return optimizer.Step(options);
}

// A step that runs on a thread of its own, as another trainer's does.
inline std::future<absl::StatusOr<StepResult>> StepAsync(ShardedOptimizer& optimizer,
                                                         const StepOptions& options = {}) {
  return std::async(std::launch::async, [&optimizer, options] { return optimizer.Step(options); });
}

inline StepOptions WithTimeout(absl::Duration timeout) {
  StepOptions options;
  options.timeout = timeout;
  return options;
}

// Along dimension 0, over the first `servers` servers.
inline Chunk Rows(int servers) {
  Chunk chunk;
  for (int server = 0; server < servers; ++server) chunk.placements.push_back({server, "cpu"});
  return chunk;
}

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_TEST_CLIENT_H_
