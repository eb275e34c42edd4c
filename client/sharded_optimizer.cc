#include "shardstep/client/sharded_optimizer.h"

#include "shardstep/client/optimizer_core.h"
#include "shardstep/client/pull_core.h"
#include "shardstep/client/state_dict_read.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

StateDictOptions StateOnly(const PullOptions& options) {
  StateDictOptions state;
  state.parameters = false;
  state.at_least_version = options.at_least_version;
  state.timeout = options.timeout;
  return state;
}

}  // namespace

bool IsRolledBack(const absl::Status& status) { return ReasonOf(status) == v1::ROLLED_BACK; }

GradientPush::GradientPush(std::shared_ptr<internal::PushCore> core) : core_(std::move(core)) {}
GradientPush::GradientPush(GradientPush&&) noexcept = default;
GradientPush& GradientPush::operator=(GradientPush&&) noexcept = default;
GradientPush::~GradientPush() = default;

absl::Status GradientPush::Add(absl::string_view name, const ConstTensorView& gradient,
                               const std::shared_ptr<const void>& owner) {
  return AddShards(name, {gradient}, owner);
}

absl::Status GradientPush::AddShards(absl::string_view name,
                                     absl::Span<const ConstTensorView> local_shards,
                                     const std::shared_ptr<const void>& owner) {
  if (core_ == nullptr) return absl::FailedPreconditionError("the push was moved away");
  return core_->pushes().Add(core_->id(), name, local_shards, owner);
}

absl::Status GradientPush::AddRows(absl::string_view name, const RowGradient& gradient,
                                   const std::shared_ptr<const void>& owner) {
  if (core_ == nullptr) return absl::FailedPreconditionError("the push was moved away");
  return core_->pushes().AddRows(core_->id(), name, gradient, owner);
}

absl::Status GradientPush::Finish() {
  if (core_ == nullptr) return absl::FailedPreconditionError("the push was moved away");
  return core_->pushes().Finish(core_->id());
}

ShardedOptimizer::ShardedOptimizer(std::unique_ptr<internal::OptimizerCore> core)
    : core_(std::move(core)) {}
ShardedOptimizer::ShardedOptimizer(ShardedOptimizer&&) noexcept = default;
ShardedOptimizer& ShardedOptimizer::operator=(ShardedOptimizer&&) noexcept = default;
ShardedOptimizer::~ShardedOptimizer() = default;

const std::string& ShardedOptimizer::name() const { return core_->name(); }
int ShardedOptimizer::trainer_rank() const { return core_->trainer_rank(); }
uint64_t ShardedOptimizer::version() const { return core_->version(); }
uint64_t ShardedOptimizer::lineage() const { return core_->lineage(); }
uint64_t ShardedOptimizer::durable_version() const { return core_->durable_version(); }

uint64_t ShardedOptimizer::last_step_version() const { return core_->last_step_version(); }

const std::vector<ParameterInfo>& ShardedOptimizer::named_params() const {
  return core_->parameters();
}

const std::vector<ParamGroup>& ShardedOptimizer::param_groups() const {
  return core_->param_groups();
}

absl::Status ShardedOptimizer::SetOption(int group, absl::string_view name, OptionValue value) {
  return core_->SetOption(group, name, std::move(value));
}

absl::Status ShardedOptimizer::set_trainer_state(std::string bytes) {
  return core_->SetTrainerState(std::move(bytes));
}

const std::string& ShardedOptimizer::trainer_state() const { return core_->trainer_state(); }

absl::StatusOr<GradientPush> ShardedOptimizer::StartPush(const PushOptions& options) {
  SHARDSTEP_ASSIGN_OR_RETURN(std::shared_ptr<internal::PushCore> push, core_->StartPush(options));
  return GradientPush(std::move(push));
}

absl::Status ShardedOptimizer::ZeroGrad(bool set_to_none) { return core_->ZeroGrad(set_to_none); }

absl::StatusOr<StepResult> ShardedOptimizer::Step(const StepOptions& options,
                                                  const Closure& closure) {
  std::optional<double> loss;
  if (closure) {
    SHARDSTEP_ASSIGN_OR_RETURN(loss, closure());
  }
  SHARDSTEP_ASSIGN_OR_RETURN(StepResult result, core_->Step(options));
  result.loss = loss;
  return result;
}

absl::StatusOr<PullResult> ShardedOptimizer::Pull(absl::Span<const NamedTensor> into,
                                                  const PullOptions& options) {
  return core_->Pull(into, options);
}

absl::Status ShardedOptimizer::AddParamGroup(const ParameterGroup& group,
                                             const AddParamGroupOptions& options) {
  return core_->AddParamGroup(group, options);
}

absl::StatusOr<StateDict> ShardedOptimizer::state_dict(const StateDictOptions& options) {
  return core_->ReadStateDict(options);
}

absl::StatusOr<StateDict> ShardedOptimizer::state(const PullOptions& options) {
  return core_->ReadStateDict(StateOnly(options));
}

absl::StatusOr<StateDictReader> ShardedOptimizer::OpenStateDict(const StateDictOptions& options) {
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<internal::StateDictStream> stream,
                             core_->OpenStateDict(options));
  return StateDictReader(std::move(stream));
}

absl::StatusOr<SaveResult> ShardedOptimizer::SaveStateDict(const std::string& path,
                                                           const SaveOptions& options) {
  return core_->SaveStateDict(path, options);
}

absl::StatusOr<LoadResult> ShardedOptimizer::LoadStateDict(const StateDict& source,
                                                           const LoadOptions& options) {
  return core_->Load(source, options);
}

absl::StatusOr<LoadResult> ShardedOptimizer::LoadStateDict(const SafetensorsSource& source,
                                                           const LoadOptions& options) {
  return core_->Load(source, options);
}

absl::StatusOr<LoadResult> ShardedOptimizer::LoadStateDict(const CheckpointSource& source,
                                                           const LoadOptions& options) {
  return core_->Load(source, options);
}

OptimizerReader::OptimizerReader(std::unique_ptr<internal::PullCore> core)
    : core_(std::move(core)) {}
OptimizerReader::OptimizerReader(OptimizerReader&&) noexcept = default;
OptimizerReader& OptimizerReader::operator=(OptimizerReader&&) noexcept = default;
OptimizerReader::~OptimizerReader() = default;

const std::vector<ParameterInfo>& OptimizerReader::named_params() const {
  return core_->index()->parameters();
}

absl::StatusOr<PullResult> OptimizerReader::Pull(absl::Span<const NamedTensor> into,
                                                 const PullOptions& options) {
  return core_->Pull(into, options.at_least_version, options.timeout);
}

absl::StatusOr<StateDict> OptimizerReader::state_dict(const StateDictOptions& options) {
  return internal::ReadStateDict(core_.get(), options, options.at_least_version);
}

absl::StatusOr<StateDict> OptimizerReader::state(const PullOptions& options) {
  return state_dict(StateOnly(options));
}

absl::StatusOr<StateDictReader> OptimizerReader::OpenStateDict(const StateDictOptions& options) {
  SHARDSTEP_ASSIGN_OR_RETURN(
      std::unique_ptr<internal::StateDictStream> stream,
      internal::OpenStateDictStream(core_.get(), options, options.at_least_version,
                                    core_->client()->Now() + options.timeout));
  return StateDictReader(std::move(stream));
}

absl::StatusOr<SaveResult> OptimizerReader::SaveStateDict(const std::string& path,
                                                          const SaveOptions& options) {
  return internal::SaveStateDictTo(core_.get(), path, options, options.at_least_version);
}

}  // namespace shardstep
