// A LibTorch module trained by a ShardedOptimizer. Header-only: the one place of the SDK that knows
// at::Tensor.
//
//   auto optimizer = client.CreateOptimizer("net", shardstep::NamedParameters(*net), ...).value();
//   shardstep::TorchAdapter model(optimizer, *net);
//   model.Pull();
//   while (...) { loss(net->forward(x), y).backward(); model.Step(); }
//
// Tensors on other devices than the CPU pass through host memory (pinned for CUDA), non-contiguous
// ones are made contiguous.
#ifndef SHARDSTEP_CLIENT_TORCH_ADAPTER_H_
#define SHARDSTEP_CLIENT_TORCH_ADAPTER_H_

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/client/client.h"
#include "shardstep/client/sharded_optimizer.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

namespace internal {

inline DType ToDType(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    case at::kHalf:
      return DType::kFloat16;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kByte:
      return DType::kUInt8;
    case at::kChar:
      return DType::kInt8;
    case at::kShort:
      return DType::kInt16;
    case at::kInt:
      return DType::kInt32;
    case at::kLong:
      return DType::kInt64;
    case at::kBool:
      return DType::kBool;
    case at::kComplexFloat:
      return DType::kComplex64;
    case at::kComplexDouble:
      return DType::kComplex128;
    default:
      return DType::kInvalid;
  }
}

// `tensor` itself where its memory can be used as it lies, else a copy in host memory.
inline at::Tensor OnHost(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor.detach().contiguous();
  const at::Tensor dense = tensor.detach().contiguous();
  return dense.to(dense.options().device(at::kCPU).pinned_memory(dense.is_cuda()));
}

inline TensorView ViewOf(const at::Tensor& host) {
  return {host.numel() == 0 ? nullptr : host.data_ptr(), ToDType(host.scalar_type()),
          host.sizes().vec()};
}

// Runs `function`, which returns a Status or StatusOr, and turns LibTorch's exceptions into one.
template <typename Function>
auto WithoutExceptions(Function&& function) -> decltype(function()) {
  try {
    return function();
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what()));
  }
}

struct TorchParameter {
  std::string name;
  at::Tensor tensor;
};

// Each tensor of `module` once, under its first name.
template <typename Module>
std::vector<TorchParameter> ParametersOf(const Module& module, const std::string& prefix,
                                         bool recurse) {
  std::vector<TorchParameter> parameters;
  std::unordered_set<const void*> seen;
  for (const auto& item : module.named_parameters(recurse)) {
    const at::Tensor& tensor = item.value();
    if (!tensor.defined() || !seen.insert(tensor.unsafeGetTensorImpl()).second) continue;
    parameters.push_back(
        {prefix.empty() ? item.key() : absl::StrCat(prefix, ".", item.key()), tensor});
  }
  return parameters;
}

}  // namespace internal

// The parameters of a torch::nn::Module in its order, as torch.nn.Module.named_parameters(prefix,
// recurse) names them: each tensor once, tied tensors under their first name. The views point into
// the module's own memory (or to a copy that they own, see the top of the file).
template <typename Module>
std::vector<NamedTensor> NamedParameters(const Module& module, const std::string& prefix = "",
                                         bool recurse = true) {
  std::vector<NamedTensor> named;
  for (const internal::TorchParameter& parameter :
       internal::ParametersOf(module, prefix, recurse)) {
    const auto host = std::make_shared<const at::Tensor>(internal::OnHost(parameter.tensor));
    NamedTensor entry;
    entry.name = parameter.name;
    entry.value = internal::ViewOf(*host);
    entry.owner = host;
    named.push_back(std::move(entry));
  }
  return named;
}

// Moves a module's gradients to the fleet and its parameters back. Not thread-safe
// (OverlapBackward's hooks may run on autograd's threads). All methods block as ShardedOptimizer's
// do.
class TorchAdapter {
 public:
  // `optimizer` must outlive the adapter; the module's tensors are shared with it. `prefix` as in
  // NamedParameters.
  template <typename Module>
  TorchAdapter(ShardedOptimizer& optimizer, const Module& module, const std::string& prefix = "")
      : optimizer_(optimizer),
        parameters_(internal::ParametersOf(module, prefix, /*recurse=*/true)) {}

  TorchAdapter(const TorchAdapter&) = delete;
  TorchAdapter& operator=(const TorchAdapter&) = delete;

  ~TorchAdapter() {
    for (const internal::TorchParameter& hooked : hooked_) {
      torch::autograd::impl::set_post_acc_grad_hooks(hooked.tensor, nullptr);
    }
  }

  // Fills the module's parameters from one version, the last step's or a newer one:
  // optimizer.version() then.
  absl::Status Pull(const PullOptions& options = {}) {
    return internal::WithoutExceptions([&] { return PullInto(options); });
  }

  // Pushes the gradients that the module has, steps, and pulls. Takes `.grad` out of the
  // parameters, as zero_grad(set_to_none=True) does; a parameter whose grad is undefined has none
  // in this step. If the step was committed and the pull failed, optimizer.version() is the new
  // version and Pull may be called again.
  absl::StatusOr<StepResult> Step(const StepOptions& options = {}) {
    const absl::Time deadline = absl::Now() + options.timeout;
    return internal::WithoutExceptions([&]() -> absl::StatusOr<StepResult> {
      SHARDSTEP_RETURN_IF_ERROR(hooked_.empty() ? PushGradients() : FinishOverlapped());
      SHARDSTEP_ASSIGN_OR_RETURN(StepResult result, optimizer_.Step(options));
      PullOptions pull;
      pull.timeout = std::max(absl::Seconds(1), deadline - absl::Now());
      SHARDSTEP_RETURN_IF_ERROR(PullInto(pull));
      return result;
    });
  }

  // torch.optim's add_param_group, of all parameters of `module` (named with `prefix`), with
  // `options` where they differ from the constructor's. From now on Pull and Step are of them too.
  // See ShardedOptimizer::AddParamGroup. The values in `module` stay; Pull brings those that stand.
  template <typename Module>
  absl::Status AddParamGroup(const Module& module, const std::string& prefix = "",
                             const OptionMap& options = {}, const AddParamGroupOptions& call = {}) {
    return internal::WithoutExceptions([&]() -> absl::Status {
      ParameterGroup group;
      group.parameters = NamedParameters(module, prefix);
      group.options = options;
      std::vector<internal::TorchParameter> added =
          internal::ParametersOf(module, prefix, /*recurse=*/true);
      const auto known = [this](const internal::TorchParameter& parameter) {
        return std::any_of(parameters_.begin(), parameters_.end(),
                           [&](const auto& other) { return other.name == parameter.name; });
      };
      added.erase(std::remove_if(added.begin(), added.end(), known), added.end());
      if (!hooked_.empty()) SHARDSTEP_RETURN_IF_ERROR(CheckUnhooked(added));
      SHARDSTEP_RETURN_IF_ERROR(optimizer_.AddParamGroup(group, call));
      for (internal::TorchParameter& parameter : added) {
        parameters_.push_back(std::move(parameter));
        if (!hooked_.empty()) Hook(parameters_.size() - 1);
      }
      return absl::OkStatus();
    });
  }

  // From now on backward() itself pushes: each parameter's gradient as soon as it is complete,
  // while backward still runs for the others. `passes` is how many times backward() runs for one
  // Step (gradient accumulation); with more than one, each is a push of its own.
  // FAILED_PRECONDITION: a parameter has a post-accumulate-grad hook.
  absl::Status OverlapBackward(int passes = 1) {
    if (passes < 1) {
      return absl::InvalidArgumentError(absl::StrCat("passes: expected at least 1, got ", passes));
    }
    passes_ = passes;
    return internal::WithoutExceptions([&] { return InstallHooks(); });
  }

 private:
  class PushHook : public torch::autograd::PostAccumulateGradHook {
   public:
    PushHook(TorchAdapter* adapter, size_t index) : adapter_(adapter), index_(index) {}
    void operator()(const at::Tensor& parameter) override {
      adapter_->PushOverlapped(index_, parameter);
    }

   private:
    TorchAdapter* const adapter_;
    const size_t index_;
  };

  // The gradient, out of the parameter.
  static at::Tensor TakeGradient(const at::Tensor& parameter) {
    at::Tensor gradient = parameter.grad();
    parameter.mutable_grad() = at::Tensor();
    return gradient;
  }

  static absl::Status AddTo(GradientPush& push, const std::string& name,
                            const at::Tensor& gradient) {
    if (gradient.layout() == at::kSparse) return AddRowsTo(push, name, gradient);
    if (gradient.layout() != at::kStrided) {
      return absl::InvalidArgumentError(absl::StrCat("gradient of \"", name, "\": layout ",
                                                     c10::str(gradient.layout()),
                                                     ", expected Strided or Sparse"));
    }
    const auto host = std::make_shared<const at::Tensor>(internal::OnHost(gradient));
    return push.Add(name, internal::ViewOf(*host), host);
  }

  // A sparse tensor, as nn::Embedding(sparse=True) makes it; it need not be coalesced.
  static absl::Status AddRowsTo(GradientPush& push, const std::string& name,
                                const at::Tensor& gradient) {
    if (gradient.sparse_dim() != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("gradient of \"", name, "\": sparse in ", gradient.sparse_dim(),
                       " dimensions, expected rows (sparse in dimension 0 alone)"));
    }
    const at::Tensor rows = internal::OnHost(gradient._indices().select(0, 0));
    const auto values = std::make_shared<const at::Tensor>(internal::OnHost(gradient._values()));
    const absl::Span<const int64_t> numbers(rows.const_data_ptr<int64_t>(),
                                            static_cast<size_t>(rows.numel()));
    return push.AddRows(name, {numbers, internal::ViewOf(*values)}, values);
  }

  absl::Status PushGradients() {
    std::optional<GradientPush> push;
    for (const internal::TorchParameter& parameter : parameters_) {
      if (!parameter.tensor.grad().defined()) continue;
      if (!push) {
        SHARDSTEP_ASSIGN_OR_RETURN(push, optimizer_.StartPush(LastPush(true)));
      }
      SHARDSTEP_RETURN_IF_ERROR(AddTo(*push, parameter.name, TakeGradient(parameter.tensor)));
    }
    return push ? push->Finish() : absl::OkStatus();
  }

  absl::Status PullInto(const PullOptions& options) {
    std::vector<NamedTensor> into;
    std::vector<at::Tensor> hosts;
    for (const internal::TorchParameter& parameter : parameters_) {
      hosts.push_back(internal::OnHost(parameter.tensor));
      NamedTensor entry;
      entry.name = parameter.name;
      entry.value = internal::ViewOf(hosts.back());
      into.push_back(std::move(entry));
    }
    SHARDSTEP_RETURN_IF_ERROR(optimizer_.Pull(into, options).status());
    for (size_t i = 0; i < hosts.size(); ++i) {
      const at::Tensor& parameter = parameters_[i].tensor;
      if (hosts[i].is_alias_of(parameter)) {
        torch::autograd::impl::bump_version(parameter);
      } else {
        parameter.detach().copy_(hosts[i]);
      }
    }
    return absl::OkStatus();
  }

  absl::Status InstallHooks() {
    if (!hooked_.empty()) return absl::OkStatus();
    SHARDSTEP_RETURN_IF_ERROR(CheckUnhooked(parameters_));
    for (size_t i = 0; i < parameters_.size(); ++i) Hook(i);
    return absl::OkStatus();
  }

  static absl::Status CheckUnhooked(const std::vector<internal::TorchParameter>& parameters) {
    for (const internal::TorchParameter& parameter : parameters) {
      if (parameter.tensor.requires_grad() &&
          torch::autograd::impl::post_acc_grad_hooks(parameter.tensor) != nullptr) {
        return absl::FailedPreconditionError(absl::StrCat(
            "parameter \"", parameter.name, "\" has a post-accumulate-grad hook already"));
      }
    }
    return absl::OkStatus();
  }

  void Hook(size_t index) {
    const internal::TorchParameter& parameter = parameters_[index];
    if (!parameter.tensor.requires_grad()) return;
    torch::autograd::impl::set_post_acc_grad_hooks(parameter.tensor,
                                                   std::make_unique<PushHook>(this, index));
    hooked_.push_back(parameter);
  }

  // Called by autograd. An error waits for the next Step.
  void PushOverlapped(size_t index, const at::Tensor& parameter) {
    MutexLock lock(&mutex_);
    if (!overlapped_.ok()) return;
    // The analysis does not see into a lambda that the lock is held around it.
    overlapped_ = internal::WithoutExceptions(
        [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return AddOverlapped(index, parameter); });
  }

  absl::Status AddOverlapped(size_t index, const at::Tensor& parameter)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (added_.count(index) != 0) {  // a second backward() before the Step
      SHARDSTEP_RETURN_IF_ERROR(push_->Finish());
      push_.reset();
      added_.clear();
    }
    if (!push_) {
      if (++pass_ > passes_) {
        return absl::FailedPreconditionError(absl::StrCat(
            "backward() ran ", pass_, " times before Step; OverlapBackward named ", passes_));
      }
      SHARDSTEP_ASSIGN_OR_RETURN(push_, optimizer_.StartPush(LastPush(pass_ == passes_)));
    }
    added_.insert(index);
    return AddTo(*push_, parameters_[index].name, TakeGradient(parameter));
  }

  absl::Status FinishOverlapped() {
    MutexLock lock(&mutex_);
    if (overlapped_.ok() && push_) overlapped_ = push_->Finish();
    push_.reset();
    added_.clear();
    pass_ = 0;
    return std::exchange(overlapped_, absl::OkStatus());
  }

  static PushOptions LastPush(bool last) {
    PushOptions options;
    options.last = last;
    return options;
  }

  ShardedOptimizer& optimizer_;
  std::vector<internal::TorchParameter> parameters_;
  std::vector<internal::TorchParameter> hooked_;
  int passes_ = 1;

  Mutex mutex_;
  std::optional<GradientPush> push_ ABSL_GUARDED_BY(mutex_);
  std::unordered_set<size_t> added_ ABSL_GUARDED_BY(mutex_);
  int pass_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status overlapped_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_TORCH_ADAPTER_H_
