#include "shardstep/optim/local_optimizer.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "shardstep/optim/aten_status.h"
#include "shardstep/optim/coupled_shard.h"
#include "shardstep/optim/gradient_checks.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/coupling.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/parameter_step.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status CheckShard(size_t index, const ShardValue& shard, size_t num_parameters) {
  if (shard.parameter >= num_parameters) {
    return absl::InvalidArgumentError(absl::StrCat("shard ", index, ": expected one of ",
                                                   num_parameters, " parameters, got index ",
                                                   shard.parameter));
  }
  const bool fits =
      shard.value.defined() && shard.value.is_contiguous() &&
      (shard.value.scalar_type() == at::kFloat || shard.value.scalar_type() == at::kDouble);
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "shard ", index, ": expected a contiguous float32 or float64 tensor, got ",
      shard.value.defined() ? shard.value.is_contiguous() ? c10::toString(shard.value.scalar_type())
                                                          : "one that is not contiguous"
                            : "none"));
}

at::ScalarType ToScalarType(DType dtype, at::ScalarType otherwise) {
  if (dtype == DType::kInvalid) return otherwise;
  return dtype == DType::kFloat32 ? at::kFloat : at::kDouble;
}

}  // namespace

absl::StatusOr<LocalOptimizer> LocalOptimizer::Create(
    std::string kind, std::vector<ParamGroup> groups,
    const std::vector<std::string>& parameter_names, std::vector<ShardValue> shards,
    int64_t block_elements) {
  LocalOptimizer result;
  SHARDSTEP_ASSIGN_OR_RETURN(result.optimizer_, MakeOptimizer(kind));
  SHARDSTEP_RETURN_IF_ERROR(CheckGroups(groups));
  for (const ParamGroup& group : groups) {
    SHARDSTEP_RETURN_IF_ERROR(CheckOptions(kind, group.options));
  }
  if (block_elements < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("block_elements: expected at least 1, got ", block_elements));
  }
  result.terms_.coupling = CouplingOf(kind);
  result.kind_ = std::move(kind);
  result.groups_ = std::move(groups);
  result.terms_.block_elements = block_elements;
  SHARDSTEP_RETURN_IF_ERROR(result.MapParameters(parameter_names));
  result.state_.scalars.resize(parameter_names.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    SHARDSTEP_RETURN_IF_ERROR(CheckShard(i, shards[i], parameter_names.size()));
    const std::string& parameter = parameter_names[shards[i].parameter];
    SHARDSTEP_RETURN_IF_ERROR(result.PlaceShard(i, parameter, shards[i]));
    result.places_.push_back({std::move(shards[i].region), std::move(shards[i].sizes)});
    result.state_.shards.push_back({shards[i].parameter, std::move(shards[i].value), {}});
  }
  SHARDSTEP_RETURN_IF_ERROR(
      result.SetState(std::vector<std::vector<TensorState>>(shards.size()),
                      std::vector<std::vector<ScalarState>>(parameter_names.size())));
  return result;
}

absl::Status LocalOptimizer::PlaceShard(size_t index, const std::string& parameter,
                                        ShardValue& shard) const {
  Region& region = shard.region;
  Shape& sizes = shard.sizes;
  if (region == Region() && sizes.empty()) {
    sizes = shard.value.sizes().vec();
    region = {Shape(sizes.size(), 0), sizes};
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckSizes(kind_, parameter, sizes));
  bool fits = region.sizes.size() == sizes.size() && region.offsets.size() == sizes.size();
  // A shard without elements may lie beyond the end.
  for (size_t i = 0; fits && !IsEmpty(region) && i < sizes.size(); ++i) {
    fits = 0 <= region.offsets[i] && region.sizes[i] <= sizes[i] - region.offsets[i];
  }
  fits = fits && (IsEmpty(region) ? 0 : ElementCount(region.sizes)) == shard.value.numel();
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shard ", index, ": ", shard.value.numel(), " elements at ", ShapeToString(region.offsets),
        " of sizes ", ShapeToString(region.sizes), " do not fit into parameter \"", parameter,
        "\" of sizes ", ShapeToString(sizes)));
  }
  const size_t first_whole = terms_.coupling.cut == Coupling::Cut::kAnywhere      ? sizes.size()
                             : terms_.coupling.cut == Coupling::Cut::kBetweenRows ? sizes.size() - 1
                                                                                  : 0;
  for (size_t i = first_whole; i < sizes.size() && !IsEmpty(region); ++i) {
    if (region.sizes[i] == sizes[i]) continue;
    return absl::InvalidArgumentError(absl::StrCat("shard ", index, ": cuts dimension ", i,
                                                   " of parameter \"", parameter, "\", which ",
                                                   kind_, " needs whole"));
  }
  return CatchAten([&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    if (shard.value.sizes() != at::IntArrayRef(region.sizes))
      shard.value = shard.value.view(region.sizes);
  });
}

absl::Status LocalOptimizer::SetState(std::vector<std::vector<TensorState>> states,
                                      std::vector<std::vector<ScalarState>> scalars) {
  if (stepping_) return absl::FailedPreconditionError("a step is under way");
  if (states.size() != state_.shards.size() || scalars.size() != state_.scalars.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "state of ", states.size(), " shards and ", scalars.size(), " parameters, expected ",
        state_.shards.size(), " and ", state_.scalars.size()));
  }
  const std::vector<StateSpec> specs = optimizer_->AllStates();
  const auto find = [&specs](absl::string_view name, StateSpec::Kind kind) {
    return std::find_if(specs.begin(), specs.end(), [&](const StateSpec& spec) {
      return spec.name == name && spec.kind == kind;
    });
  };
  for (size_t i = 0; i < states.size(); ++i) {
    const at::Tensor& value = state_.shards[i].value;
    for (TensorState& state : states[i]) {
      const at::Tensor& tensor = state.tensor;
      const auto spec = find(state.name, StateSpec::Kind::kLikeParameter);
      const int64_t elements =
          spec == specs.end() ? value.numel()
                              : ElementCount(StateSizes(value, places_[i].region, spec->extent));
      if (spec != specs.end() && tensor.defined() && tensor.is_contiguous() &&
          tensor.numel() == elements && tensor.scalar_type() == value.scalar_type()) {
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "state \"", state.name, "\" of shard ", i, ": expected a tensor state of ", kind_,
          " with ", elements, " contiguous elements of ", c10::toString(value.scalar_type())));
    }
  }
  for (const std::vector<ScalarState>& parameter : scalars) {
    for (const ScalarState& scalar : parameter) {
      if (find(scalar.name, StateSpec::Kind::kScalar) != specs.end()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("state \"", scalar.name, "\": expected a scalar state of ", kind_));
    }
  }
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] {
    for (size_t i = 0; i < states.size(); ++i) {
      for (TensorState& state : states[i]) {
        const auto spec = find(state.name, StateSpec::Kind::kLikeParameter);
        state.tensor =
            state.tensor.view(StateSizes(state_.shards[i].value, places_[i].region, spec->extent));
      }
    }
    if (optimizer_->HasStateAtStart()) AddInitialState(&states, &scalars);
  }));
  for (size_t i = 0; i < states.size(); ++i) state_.shards[i].states = std::move(states[i]);
  state_.scalars = std::move(scalars);
  return absl::OkStatus();
}

void LocalOptimizer::AddInitialState(std::vector<std::vector<TensorState>>* states,
                                     std::vector<std::vector<ScalarState>>* scalars) const {
  for (size_t i = 0; i < state_.shards.size(); ++i) {
    const auto& [parameter, value, unused] = state_.shards[i];
    const OptionMap& options = groups_[group_of_[parameter]].options;
    for (const StateSpec& spec : optimizer_->StatesOf(options, places_[i].sizes)) {
      const double initial = optimizer_->InitialValue(spec.name, options).value_or(0);
      if (spec.kind == StateSpec::Kind::kScalar) {
        FindOrAdd(spec, initial, &(*scalars)[parameter]);
      } else if (FindState((*states)[i], spec.name) == nullptr) {
        (*states)[i].push_back(
            {spec.name, at::full(StateSizes(value, places_[i].region, spec.extent),
                                 RoundedScalar(initial, value.scalar_type()), value.options())});
      }
    }
  }
}

absl::Status LocalOptimizer::MapParameters(const std::vector<std::string>& names) {
  absl::flat_hash_map<absl::string_view, size_t> group_of;
  for (size_t i = 0; i < groups_.size(); ++i) {
    for (const std::string& name : groups_[i].params) group_of[name] = i;
  }
  for (const std::string& name : names) {
    const auto found = group_of.find(name);
    if (found == group_of.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", name, "\": expected it once, in one parameter group"));
    }
    group_of_.push_back(found->second);
    group_of.erase(found);
  }
  if (group_of.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("parameter \"", group_of.begin()->first,
                                                 "\": in a parameter group, but no parameter"));
}

void LocalOptimizer::GetFacts(size_t shard, const StepFacts& facts, ShardFacts* of) const {
  const size_t group = group_of_[state_.shards[shard].parameter];
  const DType first =
      group < facts.group_dtypes.size() ? facts.group_dtypes[group] : DType::kInvalid;
  of->dtype = state_.shards[shard].value.scalar_type();
  of->group_dtype = ToScalarType(first, of->dtype);
  of->region = places_[shard].region;
  of->sizes = places_[shard].sizes;
}

absl::Status LocalOptimizer::BeginStep(std::vector<ShardGradient> gradients,
                                       std::optional<double> coefficient,
                                       std::vector<at::Tensor> rows, const StepFacts& facts) {
  if (stepping_) return absl::FailedPreconditionError("a step is under way");
  const std::vector<ParamGroup>& groups = facts.groups.has_value() ? *facts.groups : groups_;
  const auto options_of = [&](size_t parameter) -> const OptionMap& {
    return groups[group_of_[parameter]].options;
  };
  SHARDSTEP_RETURN_IF_ERROR(
      CheckGradients(kind_, state_, gradients, rows, TakesSums(), options_of));
  rows.resize(gradients.size());
  std::vector<std::vector<ScalarState>> scalars = state_.scalars;
  std::vector<ShardStep> steps;
  terms_.coefficient = coefficient;
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    steps.reserve(std::count_if(gradients.begin(), gradients.end(),
                                [](const ShardGradient& gradient) { return gradient.defined(); }));
    // A parameter's shards follow each other, mostly.
    std::optional<ParameterStep> step;
    size_t step_of = 0;
    ShardFacts of;
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (!gradients[i].defined()) continue;
      const size_t parameter = state_.shards[i].parameter;
      if (!step || step_of != parameter) {
        GetFacts(i, facts, &of);
        step.emplace(BeginParameter(*optimizer_, options_of(parameter), of,
                                    state_.scalars[parameter], rows[i].defined()));
        step_of = parameter;
        scalars[parameter] = step->scalars;
      }
      steps.emplace_back(i, state_.shards[i], places_[i].region, gradients[i], rows[i], *step,
                         terms_);
    }
  }));
  steps_ = std::move(steps);
  scalars_out_ = std::move(scalars);
  round_ = 0;
  round_finished_ = false;
  stepping_ = true;
  absl::Status begun = CatchAten([this] { LayOutBlocks(); });
  if (!begun.ok()) AbandonStep();
  return begun;
}

void LocalOptimizer::LayOutBlocks() {
  blocks_.clear();
  for (size_t i = 0; i < steps_.size(); ++i) {
    steps_[i].LayOut(round_, state_.shards[steps_[i].shard()], terms_,
                     [this, i](const ShardBlock& block) {
                       blocks_.push_back({i, block, absl::OkStatus()});
                     });
  }
}

absl::StatusOr<std::vector<ShardSums>> LocalOptimizer::FinishRound() {
  if (!stepping_ || round_ == reduce_rounds() || round_finished_) {
    return absl::FailedPreconditionError("no round of sums is under way");
  }
  for (const BlockWork& block : blocks_) SHARDSTEP_RETURN_IF_ERROR(block.status);
  std::vector<ShardSums> parts;
  for (const ShardStep& step : steps_) step.coupled()->FinishRound(&parts);
  round_finished_ = true;
  return parts;
}

absl::Status LocalOptimizer::BeginRound(const std::vector<ShardSums>& totals) {
  if (!round_finished_) return absl::FailedPreconditionError("no round of sums has been finished");
  absl::Span<const ShardSums> left(totals);
  for (const ShardStep& step : steps_) {
    SHARDSTEP_RETURN_IF_ERROR(step.coupled()->CheckTotals(&left));
  }
  if (!left.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("totals: ", left.size(), " more than this server has parts of"));
  }
  left = totals;
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (const ShardStep& step : steps_) step.coupled()->TakeTotals(&left);
    ++round_;
    round_finished_ = false;
    LayOutBlocks();
  }));
  return absl::OkStatus();
}

void LocalOptimizer::AbandonStep() {
  steps_.clear();
  blocks_.clear();
  round_finished_ = false;
  stepping_ = false;
}

void LocalOptimizer::RunBlock(size_t index) {
  BlockWork& work = blocks_[index];
  work.status = CatchAten([&] { steps_[work.step].RunBlock(work.block, terms_.coefficient); });
}

absl::Status LocalOptimizer::FinishStep() {
  if (!stepping_) return absl::FailedPreconditionError("no step is under way");
  if (round_ < reduce_rounds()) {
    return absl::FailedPreconditionError("a round of sums is under way, not the update");
  }
  for (const BlockWork& block : blocks_) SHARDSTEP_RETURN_IF_ERROR(block.status);
  for (ShardStep& step : steps_) step.Finish(&state_.shards[step.shard()]);
  state_.scalars = std::move(scalars_out_);
  steps_.clear();
  blocks_.clear();
  stepping_ = false;
  return absl::OkStatus();
}

absl::Status LocalOptimizer::SetOption(size_t group, absl::string_view name,
                                       const OptionValue& value) {
  if (group >= groups_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("param_groups[", group, "]: expected an index below ", groups_.size()));
  }
  OptionMap options = groups_[group].options;
  options.Set(name, value);
  SHARDSTEP_RETURN_IF_ERROR(CheckOptions(kind_, options));
  groups_[group].options = std::move(options);
  return absl::OkStatus();
}

}  // namespace shardstep
