#include "shardstep/optim/local_optimizer.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "shardstep/optim/aten_status.h"
#include "shardstep/optim/buffers.h"
#include "shardstep/optim/flat.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/options/row_gradients.h"
#include "shardstep/optim/parts.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/sharding/extent.h"
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

at::ScalarType ToScalarType(DType dtype, at::ScalarType otherwise) {
  if (dtype == DType::kInvalid) return otherwise;
  return dtype == DType::kFloat32 ? at::kFloat : at::kDouble;
}

// A coupled update of whole rows, for rows that stand one behind the other: those along the first
// dimension of a parameter of these sizes, each of one row of the update or of several.
std::shared_ptr<const BlockUpdate> UpdateOfRows(std::shared_ptr<const CoupledUpdate> update,
                                                const Shape& sizes) {
  return std::make_shared<const BlockUpdate>(
      [update = std::move(update), columns = sizes.back()](Block& block) {
        if (block.gradient.numel() == 0) return;
        const int64_t rows = block.gradient.numel() / columns;
        CoupledBlock matrix;
        matrix.place = {{0, 0, 0}, {1, rows, columns}};
        matrix.gradient = block.gradient.view({1, rows, columns});
        matrix.value_in = block.value_in.view({1, rows, columns});
        matrix.value_out = block.value_out.view({1, rows, columns});
        for (const StateBlock& state : block.states) {
          matrix.states.push_back({state.in.view({1, rows, -1}), state.out.view({1, rows, -1})});
        }
        update->Update(matrix);
      });
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
  const OptionMap* options = nullptr;
  std::shared_ptr<const BlockUpdate> update;
  std::vector<StateSpec> specs;
  std::vector<ScalarState> scalars;
  // Where elements depend on each other, also:
  std::vector<double> scalars_before;
  ShardFacts facts;
  // Blocks of rows are gathered for the update, and hold all that the states begin with already.
  bool by_rows = false;
  std::vector<at::Scalar> begins;  // by tensor state; of a step by rows only
  bool any_part = false;           // see Optimizer::UpdatesAnyPart
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
  result.coupling_ = CouplingOf(kind);
  result.kind_ = std::move(kind);
  result.groups_ = std::move(groups);
  result.block_elements_ = block_elements;
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
  const size_t first_whole = coupling_.cut == Coupling::Cut::kAnywhere      ? sizes.size()
                             : coupling_.cut == Coupling::Cut::kBetweenRows ? sizes.size() - 1
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
          spec == specs.end() ? value.numel() : ElementCount(StateSizes(i, spec->extent));
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
        state.tensor = state.tensor.view(StateSizes(i, spec->extent));
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
            {spec.name, at::full(StateSizes(i, spec.extent),
                                 RoundedScalar(initial, value.scalar_type()), value.options())});
      }
    }
  }
}

Shape LocalOptimizer::StateSizes(size_t shard, Extent extent) const {
  // Where a value lies matters to those alone that keep something per row.
  if (extent == Extent::kElement) return state_.shards[shard].value.sizes().vec();
  return ExtentSizes(extent, places_[shard].region.sizes);
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

absl::Status LocalOptimizer::CheckGradients(const std::vector<ShardGradient>& gradients,
                                            const std::vector<at::Tensor>& rows,
                                            const std::vector<ParamGroup>& groups) const {
  if (gradients.size() != state_.shards.size() ||
      (!rows.empty() && rows.size() != gradients.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "gradients: expected one for each of ", state_.shards.size(), " shards, got ",
        gradients.size(), rows.empty() ? "" : absl::StrCat(", rows of ", rows.size())));
  }
  enum class Form { kNone, kDense, kRows };
  std::vector<std::optional<Form>> forms(group_of_.size());  // by parameter
  for (size_t i = 0; i < gradients.size(); ++i) {
    const auto& [gradient, sum] = gradients[i];
    const LocalState::Shard& shard = state_.shards[i];
    const bool by_rows = !rows.empty() && rows[i].defined();
    const Form form = by_rows ? Form::kRows : gradients[i].defined() ? Form::kDense : Form::kNone;
    const bool first = !forms[shard.parameter].has_value();
    if (first) forms[shard.parameter] = form;
    if (forms[shard.parameter] != form) {
      return absl::InvalidArgumentError(absl::StrCat(
          "gradient of shard ", i, ": expected one for all shards of a parameter or for none"));
    }
    if (first && form != Form::kNone) {
      const OptionMap& options = groups[group_of_[shard.parameter]].options;
      SHARDSTEP_RETURN_IF_ERROR(by_rows ? CheckTakesRows(kind_, options) : CheckTakesDense(kind_));
    }
    if (by_rows) {
      if (!AreRowsOf(shard.value, gradient, rows[i])) {
        return absl::InvalidArgumentError(absl::StrCat(
            "gradient of shard ", i, ": expected ascending rows of it, and their elements"));
      }
      continue;
    }
    if (sum != nullptr) {
      if (TakesSums() && sum->dtype() == shard.value.scalar_type() &&
          sum->elements() == shard.value.numel()) {
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "gradient of shard ", i, ": a sum of ", sum->elements(), " elements of ",
          c10::toString(sum->dtype()), ", expected ",
          TakesSums()
              ? absl::StrCat(shard.value.numel(), " of ", c10::toString(shard.value.scalar_type()))
              : absl::StrCat("a tensor, as ", kind_, " needs it")));
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

LocalOptimizer::ParameterStep LocalOptimizer::BeginParameter(size_t shard, bool by_rows,
                                                             const StepFacts& facts) const {
  const size_t parameter = state_.shards[shard].parameter;
  const size_t group = group_of_[parameter];
  const at::ScalarType dtype = state_.shards[shard].value.scalar_type();
  const std::vector<ParamGroup>& groups = facts.groups.has_value() ? *facts.groups : groups_;
  const OptionMap& options = groups[group].options;
  ParameterStep step;
  step.options = &options;
  step.specs = optimizer_->StatesOf(options, places_[shard].sizes);
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
  if (by_rows) {
    for (const std::optional<at::Scalar>& begin : begins) step.begins.push_back(begin.value_or(0));
  }
  if (const CoupledOptimizer* coupled = optimizer_->AsCoupled()) {
    const DType first =
        group < facts.group_dtypes.size() ? facts.group_dtypes[group] : DType::kInvalid;
    step.facts = {dtype, ToScalarType(first, dtype), places_[shard].region, places_[shard].sizes};
    step.scalars_before = values;
    std::shared_ptr<const CoupledUpdate> update =
        coupled->BeginShard(options, step.facts, absl::MakeSpan(values));
    step.by_rows = by_rows;
    if (by_rows) step.update = UpdateOfRows(std::move(update), places_[shard].sizes);
  } else {
    step.by_rows = by_rows && !optimizer_->RowsMoveAll(options);
    step.any_part = optimizer_->UpdatesAnyPart();
    BlockUpdate update =
        by_rows ? nullptr : optimizer_->BeginVectorized(options, dtype, absl::MakeSpan(values));
    if (update == nullptr) {
      update = ScaledInParts(by_rows ? optimizer_->BeginRows(options, dtype, absl::MakeSpan(values))
                                     : optimizer_->Begin(options, dtype, absl::MakeSpan(values)),
                             optimizer_->UpdatesAnyPart());
    }
    step.update = std::make_shared<const BlockUpdate>(
        [update = std::move(update), begins = std::move(begins)](Block& block) {
          for (size_t i = 0; i < begins.size(); ++i) {
            StateBlock& state = block.states[i];
            if (!state.in.defined() && begins[i].has_value())
              state.in = state.out.fill_(*begins[i]);
          }
          update(block);
        });
  }
  size_t next = 0;
  for (const StateSpec& spec : step.specs) {
    if (spec.kind == StateSpec::Kind::kScalar) {
      FindOrAdd(spec, 0, &step.scalars).value = values[next++];
    }
  }
  return step;
}

LocalOptimizer::ShardWork LocalOptimizer::BeginShard(size_t index, const ShardGradient& given,
                                                     const at::Tensor& rows,
                                                     const ParameterStep& step) const {
  const LocalState::Shard& shard = state_.shards[index];
  ShardWork work;
  work.shard = index;
  work.update = step.update;
  work.value_out = OutputFor(shard.value);
  work.any_part = step.any_part;
  work.sum = given.sum;
  const at::Tensor& gradient = given.tensor;
  if (gradient.defined()) {
    work.flat.gradient = rows.defined() && !step.by_rows
                             ? WithoutRows(gradient, rows, shard.value.numel())
                             : Flat(gradient);
  }
  work.flat.value_in = Flat(shard.value);
  work.flat.value_out = Flat(work.value_out);
  for (const StateSpec& spec : step.specs) {
    if (spec.kind == StateSpec::Kind::kScalar) continue;
    const at::Tensor* current = FindState(shard.states, spec.name);
    const at::Tensor out = current == nullptr
                               ? at::empty(StateSizes(index, spec.extent), shard.value.options())
                               : OutputFor(*current);
    work.flat.states.push_back({current == nullptr ? at::Tensor() : Flat(*current), Flat(out)});
    work.states_out.push_back({spec.name, out});
  }
  if (step.by_rows) {
    work.by_rows = {rows, gradient.size(1), std::move(work.flat), step.begins};
  }
  return work;
}

LocalOptimizer::ShardWork LocalOptimizer::BeginCoupled(size_t index, const at::Tensor& gradient,
                                                       const ParameterStep& step) const {
  const LocalState::Shard& shard = state_.shards[index];
  const OptionMap& options = *step.options;
  ShardWork work;
  work.shard = index;
  Block block;
  block.gradient = gradient;
  block.value_in = shard.value;
  for (const StateSpec& spec : step.specs) {
    if (spec.kind == StateSpec::Kind::kScalar) continue;
    // What is kept per row is made in a round, of whose step nobody knows how it will end.
    const bool in_place = spec.extent == Extent::kElement || reduce_rounds() == 0;
    const Shape sizes = StateSizes(index, spec.extent);
    StateBlock state;
    if (const at::Tensor* current = FindState(shard.states, spec.name)) {
      if (!in_place) state.out = at::empty_like(*current);
      state.in = *current;
    } else {
      state.out = at::empty(sizes, shard.value.options());
      if (const auto initial = optimizer_->InitialValue(spec.name, options)) {
        const at::Tensor begun = in_place ? state.out : at::empty_like(state.out);
        state.in = begun.fill_(RoundedScalar(*initial, shard.value.scalar_type()));
      }
    }
    work.states_out.push_back({spec.name, state.out});
    block.states.push_back(std::move(state));
  }
  ShardFacts facts = step.facts;
  facts.region = places_[index].region;
  std::vector<double> scalars = step.scalars_before;
  work.coupled = std::make_unique<CoupledShard>(
      optimizer_->AsCoupled()->BeginShard(options, facts, absl::MakeSpan(scalars)), index, facts,
      step.specs, block, coupling_.cut, block_elements_, coefficient_);
  return work;
}

void LocalOptimizer::CutWork(size_t index) {
  const ShardWork& work = works_[index];
  if (!work.by_rows.rows.defined()) {
    const int64_t elements = work.flat.value_in.numel();
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

absl::Status LocalOptimizer::BeginStep(std::vector<ShardGradient> gradients,
                                       std::optional<double> coefficient,
                                       std::vector<at::Tensor> rows, const StepFacts& facts) {
  if (stepping_) return absl::FailedPreconditionError("a step is under way");
  SHARDSTEP_RETURN_IF_ERROR(
      CheckGradients(gradients, rows, facts.groups.has_value() ? *facts.groups : groups_));
  rows.resize(gradients.size());
  std::vector<std::vector<ScalarState>> scalars = state_.scalars;
  std::vector<ShardWork> works;
  coefficient_ = coefficient;
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    // A parameter's shards follow each other, mostly.
    std::optional<ParameterStep> step;
    size_t step_of = 0;
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (!gradients[i].defined()) continue;
      const size_t parameter = state_.shards[i].parameter;
      if (!step || step_of != parameter) {
        step.emplace(BeginParameter(i, rows[i].defined(), facts));
        step_of = parameter;
        scalars[parameter] = step->scalars;
      }
      const bool coupled = optimizer_->AsCoupled() != nullptr && !rows[i].defined();
      works.push_back(coupled ? BeginCoupled(i, gradients[i].tensor, *step)
                              : BeginShard(i, gradients[i], rows[i], *step));
    }
  }));
  works_ = std::move(works);
  scalars_out_ = std::move(scalars);
  round_ = 0;
  round_finished_ = false;
  stepping_ = true;
  absl::Status begun = CatchAten([this] { LayOutBlocks(); });
  if (!begun.ok()) AbandonStep();
  return begun;
}

void LocalOptimizer::PlaceOutputs(ShardWork& work) const {
  const LocalState::Shard& shard = state_.shards[work.shard];
  work.coupled->ReleaseInputs();
  Block block;
  work.value_out = OutputFor(shard.value);
  block.value_in = shard.value;
  block.value_out = work.value_out;
  for (TensorState& state : work.states_out) {
    StateBlock& placed = block.states.emplace_back();
    if (state.tensor.defined()) continue;
    const at::Tensor& current = *FindState(shard.states, state.name);
    state.tensor = OutputFor(current);
    placed = {current, state.tensor};
  }
  work.coupled->PlaceOutputs(block);
}

void LocalOptimizer::LayOutBlocks() {
  blocks_.clear();
  for (size_t i = 0; i < works_.size(); ++i) {
    if (CoupledShard* coupled = works_[i].coupled.get()) {
      const bool is_update = round_ == reduce_rounds();
      if (is_update) PlaceOutputs(works_[i]);
      const size_t count = is_update ? coupled->BeginUpdate() : coupled->BeginRound(round_);
      for (size_t block = 0; block < count; ++block) {
        BlockWork& added = blocks_.emplace_back();
        added.work = i;
        added.coupled_index = block;
      }
      continue;
    }
    CutWork(i);
  }
}

absl::StatusOr<std::vector<ShardSums>> LocalOptimizer::FinishRound() {
  if (!stepping_ || round_ == reduce_rounds() || round_finished_) {
    return absl::FailedPreconditionError("no round of sums is under way");
  }
  for (const BlockWork& block : blocks_) SHARDSTEP_RETURN_IF_ERROR(block.status);
  std::vector<ShardSums> parts;
  for (ShardWork& work : works_) work.coupled->FinishRound(&parts);
  round_finished_ = true;
  return parts;
}

absl::Status LocalOptimizer::BeginRound(const std::vector<ShardSums>& totals) {
  if (!round_finished_) return absl::FailedPreconditionError("no round of sums has been finished");
  absl::Span<const ShardSums> left(totals);
  for (const ShardWork& work : works_) {
    SHARDSTEP_RETURN_IF_ERROR(work.coupled->CheckTotals(&left));
  }
  if (!left.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("totals: ", left.size(), " more than this server has parts of"));
  }
  left = totals;
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (ShardWork& work : works_) work.coupled->TakeTotals(&left);
    ++round_;
    round_finished_ = false;
    LayOutBlocks();
  }));
  return absl::OkStatus();
}

void LocalOptimizer::AbandonStep() {
  works_.clear();
  blocks_.clear();
  round_finished_ = false;
  stepping_ = false;
}

void LocalOptimizer::UpdateBlock(const BlockWork& work) const {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const ShardWork& shard = works_[work.work];
  if (shard.coupled != nullptr) {
    shard.coupled->RunBlock(work.coupled_index);
    return;
  }
  if (shard.by_rows.rows.defined()) {
    return UpdateRows(shard.by_rows, {work.range, work.rows}, *shard.update, coefficient_);
  }
  if (shard.sum == nullptr) {
    return UpdateRange(shard, work.range, PartOf(shard.flat.gradient, work.range));
  }
  const auto [begin, length] = work.range;
  const int64_t unit = shard.any_part ? kPartElements : length;
  const at::Tensor scratch =
      at::empty({std::min(unit, length)}, at::TensorOptions().dtype(shard.sum->dtype()));
  for (int64_t i = 0; i < BlockCount(length, unit); ++i) {
    BlockRange part = BlockAt(i, length, unit);
    part.begin += begin;
    const at::Tensor gradient = PartOf(scratch, {0, part.length});
    shard.sum->Write(part, gradient);
    UpdateRange(shard, part, gradient);
  }
}

void LocalOptimizer::UpdateRange(const ShardWork& work, const BlockRange& range,
                                 const at::Tensor& gradient) const {
  Block block;
  block.gradient = gradient;
  block.value_in = PartOf(work.flat.value_in, range);
  block.value_out = PartOf(work.flat.value_out, range);
  for (const StateBlock& state : work.flat.states) {
    block.states.push_back({PartOf(state.in, range), PartOf(state.out, range)});
  }
  block.coefficient = coefficient_.value_or(1);
  (*work.update)(block);
}

void LocalOptimizer::RunBlock(size_t index) {
  BlockWork& block = blocks_[index];
  block.status = CatchAten([&] { UpdateBlock(block); });
}

absl::Status LocalOptimizer::FinishStep() {
  if (!stepping_) return absl::FailedPreconditionError("no step is under way");
  if (round_ < reduce_rounds()) {
    return absl::FailedPreconditionError("a round of sums is under way, not the update");
  }
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
