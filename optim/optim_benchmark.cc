// Steps per second of each optimizer on one machine, in parameters: our path, ATen's fused kernel
// where there is one, ATen's operators over whole tensors (what torch.optim does with
// foreach=False), and a memcpy that reads and writes as many bytes. Names are
// BM_<optimizer>/<path>/<elements>/threads:<n>; docs/performance.md says how to compare them.

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_fused_adagrad.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <benchmark/benchmark.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {
namespace {

constexpr int64_t kMi = int64_t{1} << 20;

// Past the first steps, in which some optimizers do less.
constexpr int kWarmUpSteps = 7;

struct WholeTensors {
  at::Tensor gradient;
  at::Tensor value;
  std::vector<at::Tensor> states;
  at::Tensor step = at::full({}, 10.0f);
};

struct Subject {
  std::string name;
  std::string kind;
  OptionMap options;
  std::vector<int64_t> shape = {16 * kMi};
  std::function<void(WholeTensors&)> fused = nullptr;
  // Elements depend on each other, or the gradient consists of rows: there is our path alone.
  bool is_reported_only = false;
  int64_t gradient_rows = 0;  // 0: the gradient is whole
};

void FusedSgd(WholeTensors& on) {
  at::_fused_sgd_({on.value}, {on.gradient}, {on.states[0]}, /*weight_decay=*/0, /*momentum=*/0.9,
                  /*lr=*/1e-3, /*dampening=*/0, /*nesterov=*/false, /*maximize=*/false,
                  /*is_first_step=*/false);
}

void FusedAdam(WholeTensors& on) {
  at::_fused_adam_({on.value}, {on.gradient}, {on.states[0]}, {on.states[1]}, {}, {on.step},
                   /*lr=*/1e-3, /*beta1=*/0.9, /*beta2=*/0.999, /*weight_decay=*/0, /*eps=*/1e-8,
                   /*amsgrad=*/false, /*maximize=*/false);
}

void FusedAdamW(WholeTensors& on) {
  at::_fused_adamw_({on.value}, {on.gradient}, {on.states[0]}, {on.states[1]}, {}, {on.step},
                    /*lr=*/1e-3, /*beta1=*/0.9, /*beta2=*/0.999, /*weight_decay=*/0.01,
                    /*eps=*/1e-8, /*amsgrad=*/false, /*maximize=*/false);
}

void FusedAdagrad(WholeTensors& on) {
  at::_fused_adagrad_({on.value}, {on.gradient}, {on.states[0]}, {on.step}, /*lr=*/1e-2,
                      /*lr_decay=*/0, /*weight_decay=*/0, /*eps=*/1e-10, /*maximize=*/false);
}

// A line per optimizer.
std::vector<Subject> Subjects() {
  return {
      {"SGD", "SGD", {{"momentum", 0.9}}, {16 * kMi}, FusedSgd},
      {"Adam", "Adam", {}, {16 * kMi}, FusedAdam},
      {"AdamW", "AdamW", {}, {16 * kMi}, FusedAdamW},
      {"Adagrad", "Adagrad", {}, {16 * kMi}, FusedAdagrad},
      {"RMSprop", "RMSprop", {}},
      {"Adadelta", "Adadelta", {}},
      {"NAdam", "NAdam", {}},
      {"RAdam", "RAdam", {}},
      {"Adamax", "Adamax", {}},
      {"Rprop", "Rprop", {}},
      {"ASGD", "ASGD", {}},
      {"ASGD_averaging", "ASGD", {{"t0", 1.0}}},
      {"Adafactor", "Adafactor", {}, {4096, 4096}, nullptr, true},
      {"Muon", "Muon", {}, {512, 512}, nullptr, true},
      {"LAMB", "LAMB", {}, {16 * kMi}, nullptr, true},
      {"LARS", "LARS", {{"momentum", 0.9}, {"weight_decay", 1e-4}}, {16 * kMi}, nullptr, true},
      {"RowWiseAdagrad", "RowWiseAdagrad", {}, {kMi, 16}, nullptr, true},
      {"RowWiseAdagrad_rows", "RowWiseAdagrad", {}, {kMi, 16}, nullptr, true, kMi / 16},
      {"SparseAdam", "SparseAdam", {}, {kMi, 16}, nullptr, true, kMi / 16},
  };
}

// Threads that run one function together, the caller being one of them.
class Team {
 public:
  explicit Team(int size) {
    for (int i = 1; i < size; ++i) members_.emplace_back([this] { Work(); });
  }
  ~Team() {
    Start(nullptr);
    for (std::thread& member : members_) member.join();
  }

  void Run(const std::function<void()>& function) {
    Start(&function);
    function();
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void Start(const std::function<void()>* function) {
    const std::lock_guard<std::mutex> lock(mutex_);
    function_ = function;
    busy_ = members_.size();
    ++round_;
    changed_.notify_all();
  }

  void Work() {
    at::set_num_threads(1);
    for (int64_t round = 1;; ++round) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return round_ >= round; });
      if (function_ == nullptr) return;
      const std::function<void()>& function = *function_;
      lock.unlock();
      function();
      lock.lock();
      if (--busy_ == 0) changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* function_ = nullptr;
  size_t busy_ = 0;
  int64_t round_ = 0;
  std::vector<std::thread> members_;
};

OptionMap FullOptions(const Subject& subject) {
  return CompleteOptions(subject.kind, subject.options).value();
}

// That a step moves.
int64_t Elements(const Subject& subject) {
  const int64_t elements = ElementCount(subject.shape);
  if (subject.gradient_rows == 0) return elements;
  return elements / subject.shape[0] * subject.gradient_rows;
}

void CountParameters(benchmark::State& state, const Subject& subject) {
  state.SetItemsProcessed(state.iterations() * Elements(subject));
}

// As a server does it: blocks, taken by threads one after the other.
void RunExact(benchmark::State& state, const Subject& subject, int threads,
              std::optional<double> coefficient) {
  at::set_num_threads(1);
  Team team(threads);
  std::vector<ShardValue> shards;
  shards.push_back({0, at::randn(subject.shape)});
  LocalOptimizer optimizer = LocalOptimizer::Create(subject.kind, {{FullOptions(subject), {"p"}}},
                                                    {"p"}, std::move(shards))
                                 .value();
  std::vector<int64_t> gradient_shape = subject.shape;
  std::vector<at::Tensor> rows;
  if (subject.gradient_rows > 0) {
    gradient_shape[0] = subject.gradient_rows;
    const int64_t apart = subject.shape[0] / subject.gradient_rows;
    rows.push_back(at::arange(0, subject.shape[0], apart, at::kLong));
  }
  const at::Tensor gradient = at::randn(gradient_shape);
  const auto run_blocks = [&] {
    std::atomic<size_t> next = 0;
    team.Run([&] {
      for (size_t i = next++; i < optimizer.num_blocks(); i = next++) optimizer.RunBlock(i);
    });
  };
  const auto step = [&] {
    if (!optimizer.BeginStep({gradient}, coefficient, rows).ok()) state.SkipWithError("BeginStep");
    run_blocks();
    for (int round = 0; round < optimizer.reduce_rounds(); ++round) {
      // The shard is all of its parameter: there is nobody to add to its sums.
      if (!optimizer.FinishRound().ok() || !optimizer.BeginRound({}).ok()) {
        state.SkipWithError("a round of sums");
      }
      run_blocks();
    }
    if (!optimizer.FinishStep().ok()) state.SkipWithError("FinishStep");
  };
  for (int i = 0; i < kWarmUpSteps; ++i) step();
  for (auto unused : state) step();
  CountParameters(state, subject);
}

// The same operators over whole tensors, on ATen's own threads.
void RunPlain(benchmark::State& state, const Subject& subject, int threads) {
  at::set_num_threads(threads);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const OptionMap options = FullOptions(subject);
  const auto optimizer = MakeOptimizer(subject.kind).value();
  std::vector<double> scalars;
  Block block;
  block.gradient = at::randn(subject.shape).view(-1);
  block.value_in = block.value_out = at::randn(subject.shape).view(-1);
  for (const StateSpec& spec : optimizer->States(options)) {
    const double initial = optimizer->InitialValue(spec.name, options).value_or(0);
    if (spec.kind == StateSpec::Kind::kScalar) {
      scalars.push_back(initial);
    } else {
      const at::Tensor tensor = at::full(block.gradient.sizes(), initial);
      block.states.push_back({tensor, tensor});
    }
  }
  const auto step = [&] { optimizer->Begin(options, at::kFloat, absl::MakeSpan(scalars))(block); };
  for (int i = 0; i < kWarmUpSteps; ++i) step();
  for (auto unused : state) step();
  CountParameters(state, subject);
}

size_t NumTensorStates(const Subject& subject) {
  size_t count = 0;
  const auto optimizer = MakeOptimizer(subject.kind).value();
  for (const StateSpec& spec : optimizer->States(FullOptions(subject))) {
    count += spec.kind == StateSpec::Kind::kLikeParameter;
  }
  return count;
}

// ATen's fused kernel over whole tensors, on its own threads.
void RunFused(benchmark::State& state, const Subject& subject, int threads) {
  at::set_num_threads(threads);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  WholeTensors tensors;
  tensors.gradient = at::randn(subject.shape);
  tensors.value = at::randn(subject.shape);
  for (size_t i = 0; i < NumTensorStates(subject); ++i) {
    tensors.states.push_back(at::zeros(subject.shape));
  }
  for (int i = 0; i < kWarmUpSteps; ++i) subject.fused(tensors);
  for (auto unused : state) subject.fused(tensors);
  CountParameters(state, subject);
}

// A step reads the gradient and reads and writes the value and every state; a copy writes half of
// what it moves.
void RunMemcpy(benchmark::State& state, const Subject& subject, int threads) {
  const int64_t moved = Elements(subject) * static_cast<int64_t>(3 + 2 * NumTensorStates(subject));
  const at::Tensor from = at::zeros({moved / 2});
  const at::Tensor to = at::zeros({moved / 2});
  Team team(threads);
  const int64_t bytes = static_cast<int64_t>(to.nbytes()) / threads;
  for (auto unused : state) {
    std::atomic<int64_t> next = 0;
    team.Run([&] {
      const int64_t begin = bytes * next++;
      std::memcpy(static_cast<char*>(to.mutable_data_ptr()) + begin,
                  static_cast<const char*>(from.const_data_ptr()) + begin, bytes);
    });
  }
  CountParameters(state, subject);
}

void Register(const Subject& subject, int threads) {
  const auto add = [&](const std::string& path, auto run) {
    const int64_t elements = Elements(subject);
    const std::string size = elements < kMi ? std::to_string(elements / 1024) + "Ki"
                                            : std::to_string(elements / kMi) + "Mi";
    const std::string name =
        "BM_" + subject.name + "/" + path + "/" + size + "/threads:" + std::to_string(threads);
    benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  add("exact", [=](benchmark::State& state) { RunExact(state, subject, threads, std::nullopt); });
  add("clipped", [=](benchmark::State& state) { RunExact(state, subject, threads, 0.5); });
  if (subject.is_reported_only) return;
  if (subject.fused != nullptr) {
    add("fused", [=](benchmark::State& state) { RunFused(state, subject, threads); });
  }
  add("plain", [=](benchmark::State& state) { RunPlain(state, subject, threads); });
  add("memcpy", [=](benchmark::State& state) { RunMemcpy(state, subject, threads); });
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  for (const int threads : {1, 2}) {
    for (const shardstep::Subject& subject : shardstep::Subjects()) {
      shardstep::Register(subject, threads);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
