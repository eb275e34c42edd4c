// Changes to what stands: groups that are added, state dicts that are loaded.

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/checkpoint/shard_files.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/older_options.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/optimizer_plan.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

std::string Quoted(absl::string_view name) { return absl::StrCat("\"", name, "\""); }

// PyTorch's words for what stands in the way of a load.
class LoadProblems {
 public:
  void NoParameter(const std::string& name) { no_parameters_.insert(Quoted(name)); }
  void Missing(std::string key) { missing_.push_back(std::move(key)); }
  void Unexpected(std::string key) { unexpected_.push_back(std::move(key)); }
  void Mismatch(std::string what) { mismatches_.push_back(std::move(what)); }

  // Of torch.nn.Module.load_state_dict and torchrec's KeyedOptimizer.
  absl::Status Judge(const std::string& optimizer, bool strict) const {
    std::vector<std::string> errors;
    if (strict && !no_parameters_.empty()) {
      errors.push_back(absl::StrCat("All state keys must be params. The following keys are not: {",
                                    absl::StrJoin(no_parameters_, ", "), "}."));
    }
    if (strict && !missing_.empty()) {
      errors.push_back(absl::StrCat("Missing key(s) in state_dict: ", List(missing_), "."));
    }
    if (strict && !unexpected_.empty()) {
      errors.push_back(absl::StrCat("Unexpected key(s) in state_dict: ", List(unexpected_), "."));
    }
    errors.insert(errors.end(), mismatches_.begin(), mismatches_.end());
    if (errors.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("Error(s) in loading state_dict for optimizer \"", optimizer,
                     "\": ", absl::StrJoin(errors, " ")));
  }
  void Report(v1::ProposeReply::Done* report) const {
    for (const std::string& key : missing_) report->add_missing_keys(key);
    for (const std::string& key : unexpected_) report->add_unexpected_keys(key);
  }

 private:
  static std::string List(const std::vector<std::string>& keys) {
    return absl::StrJoin(keys, ", ", [](std::string* out, const std::string& key) {
      absl::StrAppend(out, Quoted(key));
    });
  }

  std::set<std::string> no_parameters_;
  std::vector<std::string> missing_;
  std::vector<std::string> unexpected_;
  std::vector<std::string> mismatches_;
};

}  // namespace

// ---- add_param_group

void Coordinator::ProposeAddParamGroup(const v1::ProposeRequest& request, Caller caller,
                                       Reply<v1::ProposeReply> reply) {
  v1::CallHeader believed = request.header();
  believed.clear_plan_id();
  const absl::Status live = CheckLive(believed);
  if (!live.ok()) return reply(live);
  const auto session = FindSession(request.header());
  if (!session.ok()) return reply(session.status());
  const std::string key = absl::StrCat("add ", request.add_param_group().digest());
  if (staged_ == nullptr || staged_->key != key) {
    const std::optional<std::string> bytes = Collect(request.add_param_group(), reply);
    if (!bytes.has_value()) return;
    v1::AddParamGroupChange proposed;
    if (!proposed.ParseFromString(*bytes)) {
      return reply(absl::InvalidArgumentError("the group does not parse"));
    }
    bool stands = false;
    auto staged = MakeAddition(proposed, &stands);
    if (!staged.ok()) return reply(staged.status());
    if (stands) return AnswerWhenCovered(caller, reply, DoneReply());
    if (staged_ != nullptr) return reply(Busy());
    staged_ = *std::move(staged);
    staged_->key = key;
    staged_->whole_session = (*session)->number;
  }
  staged_->proposers.push_back({(*session)->number, request.staged(), caller, reply});
  AnswerProposers(env_.clock->Now());
}

absl::StatusOr<std::unique_ptr<Coordinator::Staged>> Coordinator::MakeAddition(
    const v1::AddParamGroupChange& proposed, bool* stands) {
  ParamGroup given;
  SHARDSTEP_ASSIGN_OR_RETURN(given.options, OptionMapFromProto(proposed.options()));
  for (const v1::Parameter& parameter : proposed.parameters()) {
    given.params.push_back(parameter.name());
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const ParamGroup group,
                             CompleteGroup(definition_.kind, definition_.defaults, given));
  // One like it that was added before, or one that has a parameter of it.
  for (size_t i = 0; i < definition_.groups.size(); ++i) {
    const ParamGroup& other = definition_.groups[i];
    if (other == group && i >= layout_->description.created_groups()) {
      *stands = true;
      for (const v1::Parameter& parameter : proposed.parameters()) {
        const ParameterShape& shape =
            layout_->parameters[layout_->parameter_index.at(parameter.name())];
        *stands = *stands && static_cast<DType>(parameter.dtype()) == shape.dtype &&
                  std::equal(parameter.sizes().begin(), parameter.sizes().end(),
                             shape.sizes.begin(), shape.sizes.end());
      }
      if (*stands) return std::unique_ptr<Staged>();
    }
  }
  for (const std::string& name : group.params) {
    if (layout_->parameter_index.count(name) == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "some parameters appear in more than one parameter group: \"", name,
        "\" is in optimizer \"", name_, "\" already, and not in an added group equal to this one"));
  }
  auto staged = std::make_unique<Staged>();
  staged->kind = Staged::Kind::kAddParamGroup;
  v1::OptimizerDefinition extended = layout_->description.definition();
  const int first_new = extended.parameters_size();
  v1::ParamGroup* added = extended.add_groups();
  *added->mutable_options() = OptionMapToProto(group.options);
  for (const v1::Parameter& parameter : proposed.parameters()) {
    added->add_parameters(extended.parameters_size());
    v1::StagedChange::Tensors* tensors = staged->change.add_tensors();
    tensors->set_parameter(extended.parameters_size());
    tensors->set_value(true);
    *extended.add_parameters() = parameter;
  }
  SHARDSTEP_ASSIGN_OR_RETURN(staged->definition, DefinitionFromProto(extended));
  staged->regions_from = staged->definition.sharded;
  std::fill(staged->regions_from.begin(), staged->regions_from.begin() + first_new, false);
  staged->groups = *groups_;
  staged->groups.push_back(group);
  staged->change.set_keep_state(true);
  staged->change.set_keep_groups(true);
  Plan plan = layout_->plan;
  SHARDSTEP_RETURN_IF_ERROR(AppendToOptimizerPlan(
      definition_.kind, &plan, staged->definition.parameters, first_new, env_.servers));
  if (staged_ == nullptr) {
    SHARDSTEP_RETURN_IF_ERROR(
        OpenStaging(staged.get(), plan, layout_->description.created_groups()));
  }
  return staged;
}

// ---- load

bool Coordinator::JoinRewind(const std::string& key, const Proposer& proposer) {
  if (staged_ != nullptr && staged_->key == key) {
    staged_->proposers.push_back(proposer);
    AnswerProposers(env_.clock->Now());
    return true;
  }
  if (state_ != State::kLive || last_rewind_.key != key ||
      last_rewind_.report.lineage() != lineage_) {
    return false;
  }
  v1::ProposeReply done;
  *done.mutable_done() = last_rewind_.report;
  done.mutable_done()->set_plan_id(layout_->plan.plan_id);
  AnswerWhenCovered(proposer.caller, proposer.reply, done);
  return true;
}

void Coordinator::ProposeLoad(const v1::ProposeRequest& request, Caller caller,
                              Reply<v1::ProposeReply> reply) {
  if (state_ == State::kRecovering) return reply(Recovering());
  if (state_ == State::kLost) return reply(LostStatus());
  const auto session = FindSession(request.header());
  if (!session.ok()) return reply(session.status());
  if (request.header().lineage() == 0) {
    return reply(absl::InvalidArgumentError(
        absl::StrCat("load into \"", name_, "\": names no lineage that it replaces")));
  }
  const std::string key =
      absl::StrCat("load ", request.load().digest(), " ", request.header().lineage());
  if (JoinRewind(key, {(*session)->number, request.staged(), caller, reply})) return;
  v1::CallHeader believed = request.header();
  believed.clear_plan_id();
  const absl::Status live = CheckLive(believed);
  if (!live.ok()) return reply(live);
  const std::optional<std::string> bytes = Collect(request.load(), reply);
  if (!bytes.has_value()) return;
  v1::LoadChange load;
  if (!load.ParseFromString(*bytes)) {
    return reply(absl::InvalidArgumentError("the load does not parse"));
  }
  if (staged_ != nullptr) return reply(Busy());
  auto staged = std::make_unique<Staged>();
  staged->kind = Staged::Kind::kLoad;
  staged->cause = v1::RollBack::LOAD;
  staged->key = key;
  staged->strict = load.strict();
  staged->whole_session = (*session)->number;
  staged->replaced_lineage = lineage_;
  if (load.checkpoint_id().empty()) {
    const absl::Status begun = BeginLoad(staged.get(), load);
    if (!begun.ok()) return reply(begun);
    staged_ = std::move(staged);
  } else {
    staged_ = std::move(staged);
    ReadManifest(load.checkpoint_id());
  }
  staged_->proposers.push_back({(*session)->number, request.staged(), caller, reply});
  AnswerProposers(env_.clock->Now());
}

absl::Status Coordinator::MatchTensors(const v1::LoadChange& load, Staged* staged) const {
  SHARDSTEP_ASSIGN_OR_RETURN(const auto optimizer, MakeOptimizer(definition_.kind));
  std::vector<const OptionMap*> options_of(definition_.parameters.size());
  // Those of the source, where it has groups: they say which states there are.
  for (const ParamGroup& group : staged->groups) {
    for (const std::string& name : group.params) {
      options_of[layout_->parameter_index.at(name)] = &group.options;
    }
  }
  LoadProblems problems;
  const auto is_master = [](const std::string& state) { return state == kMasterState; };
  const auto brings_value = [&](const v1::LoadChange::Tensors& source) {
    return source.value() || std::any_of(source.states().begin(), source.states().end(), is_master);
  };
  const bool values = std::any_of(load.tensors().begin(), load.tensors().end(), brings_value);
  std::vector<bool> has_value(definition_.parameters.size(), false);
  std::vector<bool> seen(definition_.parameters.size(), false);
  bool states = false;
  for (const v1::LoadChange::Tensors& source : load.tensors()) {
    // The master is the value, no state of the optimizer.
    const bool stepped = !std::all_of(source.states().begin(), source.states().end(), is_master);
    states = states || stepped;
    const auto found = layout_->parameter_index.find(source.parameter());
    if (found == layout_->parameter_index.end()) {
      if (!source.states().empty()) problems.NoParameter(source.parameter());
      if (source.value()) problems.Unexpected(ParameterKey(source.parameter()));
      for (const std::string& state : source.states()) {
        problems.Unexpected(StateKey(source.parameter(), state));
      }
      continue;
    }
    const int parameter = found->second;
    if (seen[parameter]) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", source.parameter(), "\" stands twice in the source"));
    }
    seen[parameter] = true;
    const ParameterShape& shape = layout_->parameters[parameter];
    const Shape sizes(source.sizes().begin(), source.sizes().end());
    if (sizes != shape.sizes) {
      problems.Mismatch(absl::StrCat(
          "size mismatch for ", shape.name, ": copying a param with shape ", ShapeToString(sizes),
          " from checkpoint, the shape in current model is ", ShapeToString(shape.sizes), "."));
    }
    const DType dtype = static_cast<DType>(source.dtype());
    if (dtype != shape.dtype && dtype != MasterDType(shape.dtype)) {
      problems.Mismatch(absl::StrCat("dtype mismatch for ", shape.name, ": ",
                                     v1::DType_Name(source.dtype()), " in the source, expected ",
                                     DTypeName(shape.dtype), "."));
    }
    v1::StagedChange::Tensors* tensors = staged->change.add_tensors();
    tensors->set_parameter(parameter);
    tensors->set_value(source.value());
    has_value[parameter] = source.value();
    std::set<std::string> names;
    for (const std::string& state : source.states()) {
      const auto& specs = layout_->description.states();
      const auto spec = std::find_if(specs.begin(), specs.end(),
                                     [&](const auto& known) { return known.name() == state; });
      if (spec == specs.end() || (is_master(state) && !HasMaster(shape.dtype))) {
        problems.Unexpected(StateKey(shape.name, state));
      } else if (names.insert(state).second) {
        tensors->add_states(spec - specs.begin() + 1);
      }
    }
    if (names.count(kMasterState) > 0) {
      tensors->set_value(false);
      has_value[parameter] = true;
    }
    for (const StateSpec& spec : optimizer->StatesOf(*options_of[parameter], shape.sizes)) {
      if (!stepped || names.count(spec.name) > 0) continue;
      problems.Missing(StateKey(shape.name, spec.name));
    }
  }
  for (size_t i = 0; values && i < has_value.size(); ++i) {
    if (!has_value[i]) problems.Missing(ParameterKey(layout_->parameters[i].name));
  }
  SHARDSTEP_RETURN_IF_ERROR(problems.Judge(name_, staged->strict));
  problems.Report(&staged->report);
  // A source of values alone is no state of an optimizer.
  staged->change.set_keep_state(!states && load.groups().empty());
  return absl::OkStatus();
}

absl::Status Coordinator::MatchGroups(const v1::LoadChange& load, Staged* staged) const {
  staged->groups = *groups_;
  if (load.groups().empty()) {
    staged->change.set_keep_groups(true);
    return absl::OkStatus();
  }
  std::map<std::set<std::string>, size_t> own;
  for (size_t i = 0; i < groups_->size(); ++i) {
    own.emplace(std::set<std::string>((*groups_)[i].params.begin(), (*groups_)[i].params.end()), i);
  }
  LoadProblems problems;
  std::set<size_t> matched;
  for (int i = 0; i < load.groups_size(); ++i) {
    const v1::NamedGroup& source = load.groups(i);
    const auto found = own.find({source.parameters().begin(), source.parameters().end()});
    if (found == own.end() || !matched.insert(found->second).second) {
      problems.Unexpected(absl::StrCat("param_groups.", i));
      continue;
    }
    ParamGroup& group = staged->groups[found->second];
    ParamGroup loaded;
    loaded.params = group.params;
    SHARDSTEP_ASSIGN_OR_RETURN(loaded.options, OptionMapFromProto(source.options()));
    AddOlderOptions(definition_.kind, &loaded.options);
    SHARDSTEP_ASSIGN_OR_RETURN(group,
                               CompleteGroup(definition_.kind, definition_.defaults, loaded));
  }
  for (size_t i = 0; i < groups_->size(); ++i) {
    if (matched.count(i) == 0) problems.Missing(absl::StrCat("param_groups.", i));
  }
  SHARDSTEP_RETURN_IF_ERROR(problems.Judge(name_, staged->strict));
  problems.Report(&staged->report);
  return absl::OkStatus();
}

absl::Status Coordinator::BeginLoad(Staged* staged, const v1::LoadChange& load) {
  SHARDSTEP_RETURN_IF_ERROR(MatchGroups(load, staged));
  SHARDSTEP_RETURN_IF_ERROR(MatchTensors(load, staged));
  staged->definition = definition_;
  staged->version = load.version();
  staged->sets_trainers = !load.trainers().empty();
  staged->trainers.assign(load.trainers().begin(), load.trainers().end());
  return OpenStaging(staged, layout_->plan, layout_->description.created_groups());
}

void Coordinator::RollBack() {
  const std::deque<StepCallPtr> waiting = waiting_;
  for (const StepCallPtr& call : waiting) FailCall(call, RolledBack(call->trainer_rank));
  for (const StepCallPtr& call : std::exchange(early_, {})) {
    call->reply(RolledBack(call->trainer_rank));
  }
  std::vector<SnapshotWaiter> still;
  for (SnapshotWaiter& waiter : std::exchange(snapshot_waiters_, {})) {
    if (waiter.lineage == 0) {
      still.push_back(std::move(waiter));
    } else {
      waiter.reply(RolledBack(-1));
    }
  }
  for (SnapshotWaiter& waiter : still) snapshot_waiters_.push_back(std::move(waiter));
}

}  // namespace shardstep
