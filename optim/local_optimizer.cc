#include "shardstep/optim/local_optimizer.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mul.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "shardstep/optim/aten_status.h"
#include "shardstep/optim/buffers.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/options/row_gradients.h"
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

// Where a step writes what it makes of `current`.
at::Tensor OutputFor(const at::Tensor& current) {
  return IsSoleOwner(current) ? current : at::empty_like(current);
}

const at::Tensor* FindState(const std::vector<TensorState>& states, absl::string_view name) {
  for (const TensorState& state : states) {
    if (state.name == name) return &state.tensor;
  }
  return nullptr;
}

// The scalar, added with `initial` where it is missing.
ScalarState& FindOrAdd(const StateSpec& spec, double initial, std::vector<ScalarState>* scalars) {
  for (ScalarState& scalar : *scalars) {
    if (scalar.name == spec.name) return scalar;
  }
  return scalars->emplace_back(ScalarState{spec.name, initial, spec.dtype});
}

// Whether `gradient` (two-dimensional) consists of these rows of a shard.
bool AreRowsOf(const at::Tensor& value, const at::Tensor& gradient, const at::Tensor& rows) {
  if (!gradient.defined() || gradient.scalar_type() != value.scalar_type() || gradient.dim() != 2 ||
      !gradient.is_contiguous() || rows.scalar_type() != at::kLong || !rows.is_contiguous() ||
      rows.numel() != gradient.size(0)) {
    return false;
  }
  const int64_t row_elements = gradient.size(1);
  if (row_elements == 0) return value.numel() == 0;
  if (value.numel() % row_elements != 0) return false;
  int64_t before = -1;
  for (int64_t i = 0; i < rows.numel(); ++i) {
    const int64_t row = rows.const_data_ptr<int64_t>()[i];
    if (row <= before || row >= value.numel() / row_elements) return false;
    before = row;
  }
  return true;
}

void PutState(TensorState state, std::vector<TensorState>* states) {
  for (TensorState& existing : *states) {
    if (existing.name == state.name) {
      existing.tensor = std::move(state.tensor);
      return;
    }
  }
  states->push_back(std::move(state));
}

}  // namespace

// What the shards of one parameter share in a step.
struct LocalOptimizer::ParameterStep {
  std::shared_ptr<const BlockUpdate> update;
  std::vector<StateSpec> specs;
  std::vector<ScalarState> scalars;
  // Blocks of rows are gathered for the update, and hold all that the states begin with already.
  bool by_rows = false;
  std::vector<at::Scalar> begins;  // by tensor state; of a step by rows only
};

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
  result.kind_ = std::move(kind);
  result.groups_ = std::move(groups);
  result.block_elements_ = block_elements;
  SHARDSTEP_RETURN_IF_ERROR(result.MapParameters(parameter_names));
  result.state_.scalars.resize(parameter_names.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    SHARDSTEP_RETURN_IF_ERROR(CheckShard(i, shards[i], parameter_names.size()));
    result.state_.shards.push_back({shards[i].parameter, std::move(shards[i].value), {}});
  }
  SHARDSTEP_RETURN_IF_ERROR(
      result.SetState(std::vector<std::vector<TensorState>>(shards.size()),
                      std::vector<std::vector<ScalarState>>(parameter_names.size())));
  return result;
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
  const auto known = [&specs](absl::string_view name, StateSpec::Kind kind) {
    return std::any_of(specs.begin(), specs.end(), [&](const StateSpec& spec) {
      return spec.name == name && spec.kind == kind;
    });
  };
  for (size_t i = 0; i < states.size(); ++i) {
    const at::Tensor& value = state_.shards[i].value;
    for (TensorState& state : states[i]) {
      const at::Tensor& tensor = state.tensor;
      if (known(state.name, StateSpec::Kind::kLikeParameter) && tensor.defined() &&
          tensor.is_contiguous() && tensor.numel() == value.numel() &&
          tensor.scalar_type() == value.scalar_type()) {
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "state \"", state.name, "\" of shard ", i, ": expected a tensor state of ", kind_,
          " with ", value.numel(), " contiguous elements of ", c10::toString(value.scalar_type())));
    }
  }
  for (const std::vector<ScalarState>& parameter : scalars) {
    for (const ScalarState& scalar : parameter) {
      if (known(scalar.name, StateSpec::Kind::kScalar)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("state \"", scalar.name, "\": expected a scalar state of ", kind_));
    }
  }
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] {
    for (size_t i = 0; i < states.size(); ++i) {
      for (TensorState& state : states[i]) {
        state.tensor = state.tensor.view(state_.shards[i].value.sizes());
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
    for (const StateSpec& spec : optimizer_->States(options)) {
      const double initial = optimizer_->InitialValue(spec.name, options).value_or(0);
      if (spec.kind == StateSpec::Kind::kScalar) {
        FindOrAdd(spec, initial, &(*scalars)[parameter]);
      } else if (FindState((*states)[i], spec.name) == nullptr) {
        (*states)[i].push_back(
            {spec.name, at::full_like(value, RoundedScalar(initial, value.scalar_type()))});
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

absl::Status LocalOptimizer::CheckGradients(const std::vector<at::Tensor>& gradients,
                                            const std::vector<at::Tensor>& rows) const {
  if (gradients.size() != state_.shards.size() ||
      (!rows.empty() && rows.size() != gradients.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "gradients: expected one for each of ", state_.shards.size(), " shards, got ",
        gradients.size(), rows.empty() ? "" : absl::StrCat(", rows of ", rows.size())));
  }
  enum class Form { kNone, kDense, kRows };
  absl::flat_hash_map<size_t, Form> forms;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const at::Tensor& gradient = gradients[i];
    const LocalState::Shard& shard = state_.shards[i];
    const bool by_rows = !rows.empty() && rows[i].defined();
    const Form form = by_rows ? Form::kRows : gradient.defined() ? Form::kDense : Form::kNone;
    const auto [found, first] = forms.try_emplace(shard.parameter, form);
    if (found->second != form) {
      return absl::InvalidArgumentError(absl::StrCat(
          "gradient of shard ", i, ": expected one for all shards of a parameter or for none"));
    }
    if (first && form != Form::kNone) {
      const OptionMap& options = groups_[group_of_[shard.parameter]].options;
      SHARDSTEP_RETURN_IF_ERROR(by_rows ? CheckTakesRows(kind_, options) : CheckTakesDense(kind_));
    }
    if (by_rows) {
      if (!AreRowsOf(shard.value, gradient, rows[i])) {
        return absl::InvalidArgumentError(absl::StrCat(
            "gradient of shard ", i, ": expected ascending rows of it, and their elements"));
      }
      continue;
    }
    if (!gradient.defined()) continue;
    if (gradient.scalar_type() != shard.value.scalar_type() ||
        gradient.numel() != shard.value.numel() || !gradient.is_contiguous()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "gradient of shard ", i, ": expected ", shard.value.numel(), " contiguous elements of ",
          c10::toString(shard.value.scalar_type()), ", got ", gradient.numel(),
          gradient.is_contiguous() ? "" : " not contiguous", " of ",
          c10::toString(gradient.scalar_type())));
    }
  }
  return absl::OkStatus();
}

LocalOptimizer::ParameterStep LocalOptimizer::BeginParameter(size_t parameter, at::ScalarType dtype,
                                                             bool by_rows) const {
  const OptionMap& options = groups_[group_of_[parameter]].options;
  ParameterStep step;
  step.specs = optimizer_->States(options);
  step.scalars = state_.scalars[parameter];
  std::vector<double> values;
  // By tensor state: what its elements begin with; empty where the update makes them.
  std::vector<std::optional<at::Scalar>> begins;
  for (const StateSpec& spec : step.specs) {
    const std::optional<double> initial = optimizer_->InitialValue(spec.name, options);
    if (spec.kind == StateSpec::Kind::kScalar) {
      values.push_back(FindOrAdd(spec, initial.value_or(0), &step.scalars).value);
    } else {
      begins.emplace_back();
      if (initial.has_value()) begins.back() = RoundedScalar(*initial, dtype);
    }
  }
  step.by_rows = by_rows && !optimizer_->RowsMoveAll(options);
  if (step.by_rows) {
    for (const std::optional<at::Scalar>& begin : begins) step.begins.push_back(begin.value_or(0));
  }
  BlockUpdate update = by_rows ? optimizer_->BeginRows(options, dtype, absl::MakeSpan(values))
                               : optimizer_->Begin(options, dtype, absl::MakeSpan(values));
  step.update = std::make_shared<const BlockUpdate>(
      [update = std::move(update), begins = std::move(begins)](Block& block) {
        for (size_t i = 0; i < begins.size(); ++i) {
          StateBlock& state = block.states[i];
          if (!state.in.defined() && begins[i].has_value()) state.in = state.out.fill_(*begins[i]);
        }
        update(block);
      });
  size_t next = 0;
  for (const StateSpec& spec : step.specs) {
    if (spec.kind == StateSpec::Kind::kScalar) {
      FindOrAdd(spec, 0, &step.scalars).value = values[next++];
    }
  }
  return step;
}

LocalOptimizer::ShardWork LocalOptimizer::BeginShard(size_t index, const at::Tensor& gradient,
                                                     const at::Tensor& rows,
                                                     const ParameterStep& step) const {
  const LocalState::Shard& shard = state_.shards[index];
  ShardWork work;
  work.shard = index;
  work.update = step.update;
  work.value_out = OutputFor(shard.value);
  work.flat.gradient = rows.defined() && !step.by_rows
                           ? WithoutRows(gradient, rows, shard.value.numel())
                           : gradient.view(-1);
  work.flat.value_in = shard.value.view(-1);
  work.flat.value_out = work.value_out.view(-1);
  for (const StateSpec& spec : step.specs) {
    if (spec.kind == StateSpec::Kind::kScalar) continue;
    const at::Tensor* current = FindState(shard.states, spec.name);
    const at::Tensor out = current == nullptr ? at::empty_like(shard.value) : OutputFor(*current);
    work.flat.states.push_back(
        {current == nullptr ? at::Tensor() : current->view(-1), out.view(-1)});
    work.states_out.push_back({spec.name, out});
  }
  if (step.by_rows) {
    work.by_rows = {rows, gradient.size(1), std::move(work.flat), step.begins};
  }
  return work;
}

void LocalOptimizer::CutWork(size_t index) {
  const ShardWork& work = works_[index];
  if (!work.by_rows.rows.defined()) {
    const int64_t elements = work.flat.gradient.numel();
    for (int64_t block = 0; block < BlockCount(elements, block_elements_); ++block) {
      blocks_.push_back({index, BlockAt(block, elements, block_elements_), absl::OkStatus()});
    }
    return;
  }
  const RowWork& by_rows = work.by_rows;
  const auto here = [](const StateBlock& state) {
    return state.in.defined() && state.in.const_data_ptr() == state.out.const_data_ptr();
  };
  const bool in_place = here({by_rows.flat.value_in, by_rows.flat.value_out}) &&
                        std::all_of(by_rows.flat.states.begin(), by_rows.flat.states.end(), here);
  const auto rows =
      absl::MakeConstSpan(by_rows.rows.const_data_ptr<int64_t>(), by_rows.rows.numel());
  for (const RowBlock& block : CutRows(rows, by_rows.row_elements, by_rows.flat.value_out.numel(),
                                       in_place, block_elements_)) {
    blocks_.push_back({index, block.shard, absl::OkStatus(), block.rows});
  }
}

absl::Status LocalOptimizer::BeginStep(std::vector<at::Tensor> gradients,
                                       std::optional<double> coefficient,
                                       std::vector<at::Tensor> rows) {
  if (stepping_) return absl::FailedPreconditionError("a step is under way");
  SHARDSTEP_RETURN_IF_ERROR(CheckGradients(gradients, rows));
  rows.resize(gradients.size());
  std::vector<std::vector<ScalarState>> scalars = state_.scalars;
  std::vector<ShardWork> works;
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    absl::flat_hash_map<size_t, ParameterStep> steps;
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (!gradients[i].defined()) continue;
      const size_t parameter = state_.shards[i].parameter;
      auto found = steps.find(parameter);
      if (found == steps.end()) {
        const at::ScalarType dtype = state_.shards[i].value.scalar_type();
        found = steps.emplace(parameter, BeginParameter(parameter, dtype, rows[i].defined())).first;
        scalars[parameter] = found->second.scalars;
      }
      works.push_back(BeginShard(i, gradients[i], rows[i], found->second));
    }
  }));
  works_ = std::move(works);
  for (size_t i = 0; i < works_.size(); ++i) CutWork(i);
  scalars_out_ = std::move(scalars);
  coefficient_ = coefficient;
  stepping_ = true;
  return absl::OkStatus();
}

void LocalOptimizer::UpdateBlock(const BlockWork& work) const {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto [begin, length] = work.range;
  const ShardWork& shard = works_[work.work];
  if (shard.by_rows.rows.defined()) {
    return UpdateRows(shard.by_rows, {work.range, work.rows}, *shard.update, coefficient_);
  }
  const auto part = [begin = begin, length = length](const at::Tensor& flat) {
    return flat.defined() ? flat.narrow(0, begin, length) : at::Tensor();
  };
  Block block;
  block.gradient = part(shard.flat.gradient);
  block.value_in = part(shard.flat.value_in);
  block.value_out = part(shard.flat.value_out);
  for (const StateBlock& state : shard.flat.states) {
    block.states.push_back({part(state.in), part(state.out)});
  }
  if (coefficient_.has_value()) {
    block.gradient =
        at::mul(block.gradient, ScalarTensor(*coefficient_, block.gradient.scalar_type()));
  }
  (*shard.update)(block);
}

void LocalOptimizer::RunBlock(size_t index) {
  BlockWork& block = blocks_[index];
  block.status = CatchAten([&] { UpdateBlock(block); });
}

absl::Status LocalOptimizer::FinishStep() {
  if (!stepping_) return absl::FailedPreconditionError("no step is under way");
  for (const BlockWork& block : blocks_) SHARDSTEP_RETURN_IF_ERROR(block.status);
  for (ShardWork& work : works_) {
    LocalState::Shard& shard = state_.shards[work.shard];
    shard.value = std::move(work.value_out);
    for (TensorState& state : work.states_out) PutState(std::move(state), &shard.states);
  }
  state_.scalars = std::move(scalars_out_);
  works_.clear();
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
