#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/client/group_addition.h"
#include "shardstep/client/load.h"
#include "shardstep/client/load_source.h"
#include "shardstep/client/optimizer_core.h"
#include "shardstep/client/state_dict_read.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {

v1::CallHeader OptimizerCore::LineageHeader() const {
  v1::CallHeader header = session_->header();
  header.set_lineage(lineage_);
  return header;
}

absl::Status OptimizerCore::Describe(absl::Time deadline) {
  SHARDSTEP_ASSIGN_OR_RETURN(
      DescribedOptimizer described,
      DescribeOptimizer(*client_, session_->header(), /*staging=*/0, deadline));
  index_ = std::make_shared<const OptimizerIndex>(std::move(described.description));
  durable_version_ = described.durable_version;
  param_groups_ = index_->description().groups;
  for (const v1::OptionSetting& setting : set_options_) {
    if (setting.group() >= param_groups_.size()) continue;
    SHARDSTEP_ASSIGN_OR_RETURN(OptionValue value, OptionValueFromProto(setting.option().value()));
    param_groups_[setting.group()].options.Set(setting.option().name(), value);
  }
  pushes_->Adopt(index_);
  pull_.Adopt(lineage_, index_);
  described_ = true;
  return absl::OkStatus();
}

absl::Status OptimizerCore::EnsureDescribed(absl::Time deadline) {
  return described_ ? absl::OkStatus() : Describe(deadline);
}

void OptimizerCore::Rewind(uint64_t lineage, uint64_t version, std::string trainer_state) {
  // Its number stays used: whoever adds to it is told that it is not open.
  if (const auto open = pushes_->open()) (void)pushes_->Finish(*open);
  pushes_->Drop(pushes_->last() + 1);
  pending_.reset();
  set_options_.clear();
  lineage_ = lineage;
  version_ = version;
  stepped_version_ = version;
  pulled_version_ = version;
  durable_version_ = std::min(durable_version_, version);
  trainer_state_ = std::move(trainer_state);
  pull_.Adopt(lineage_, index_);
  described_ = false;
}

absl::Status OptimizerCore::Follow(const absl::Status& status, absl::Time deadline) {
  if (ReasonOf(status) != v1::ROLLED_BACK) return status;
  v1::ErrorDetail detail = *ErrorDetailOf(status);
  const uint64_t lineage = detail.lineage();
  // Lineages only rise: whoever says this was replaced and does not know it yet.
  if (lineage < lineage_) return absl::UnavailableError(status.message());
  if (detail.has_roll_back()) {
    Rewind(lineage, detail.roll_back().version(),
           std::move(*detail.mutable_roll_back()->mutable_trainer_state()));
  } else {
    // Told by a server that does not know the trainers' states: the coordinator does. If it cannot
    // be asked, the handle stays where it is, and its next call is told again.
    SHARDSTEP_RETURN_IF_ERROR(session_->Refresh(deadline));
    Rewind(lineage, detail.version(), session_->opened().trainer_state());
  }
  // If this fails, the next call tries again.
  (void)Describe(deadline);
  return status;
}

absl::Status OptimizerCore::CheckQuiet(absl::string_view call) const {
  if (pushes_->open()) {
    return absl::FailedPreconditionError(absl::StrCat("push ", pushes_->last(), " of \"", name(),
                                                      "\" is open; call Finish before ", call));
  }
  if (!pending_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(StepName(), " is not over; call Step before ", call));
}

uint64_t OptimizerCore::AtLeast(uint64_t asked) const { return std::max(asked, stepped_version_); }

absl::StatusOr<PullResult> OptimizerCore::Pull(absl::Span<const NamedTensor> into,
                                               const PullOptions& options) {
  const absl::Time deadline = client_->Now() + options.timeout;
  SHARDSTEP_RETURN_IF_ERROR(EnsureDescribed(deadline));
  const absl::StatusOr<PullResult> result =
      pull_.Pull(into, AtLeast(options.at_least_version), deadline - client_->Now());
  if (!result.ok()) return Follow(result.status(), deadline);
  version_ = std::max(version_, result->version);
  pulled_version_ = result->version;
  return result;
}

absl::StatusOr<StateDict> OptimizerCore::ReadStateDict(const StateDictOptions& options) {
  const absl::Time deadline = client_->Now() + options.timeout;
  absl::StatusOr<StateDict> dict =
      internal::ReadStateDict(&pull_, options, AtLeast(options.at_least_version));
  if (!dict.ok()) return Follow(dict.status(), deadline);
  return dict;
}

absl::StatusOr<std::unique_ptr<StateDictStream>> OptimizerCore::OpenStateDict(
    const StateDictOptions& options) {
  const absl::Time deadline = client_->Now() + options.timeout;
  absl::StatusOr<std::unique_ptr<StateDictStream>> stream =
      OpenStateDictStream(&pull_, options, AtLeast(options.at_least_version), deadline);
  if (!stream.ok()) return Follow(stream.status(), deadline);
  return stream;
}

absl::StatusOr<SaveResult> OptimizerCore::SaveStateDict(const std::string& path,
                                                        const SaveOptions& options) {
  const absl::Time deadline = client_->Now() + options.timeout;
  absl::StatusOr<SaveResult> saved =
      SaveStateDictTo(&pull_, path, options, AtLeast(options.at_least_version));
  if (!saved.ok()) return Follow(saved.status(), deadline);
  return saved;
}

absl::Status OptimizerCore::AddParamGroup(const ParameterGroup& group,
                                          const AddParamGroupOptions& options) {
  SHARDSTEP_RETURN_IF_ERROR(CheckQuiet("AddParamGroup"));
  const absl::Time deadline = client_->Now() + options.timeout;
  SHARDSTEP_RETURN_IF_ERROR(EnsureDescribed(deadline));
  SHARDSTEP_ASSIGN_OR_RETURN(
      const Proposal proposal,
      MakeGroupProposal(*index_, group, client_->connection().num_servers()));
  const absl::StatusOr<v1::ProposeReply::Done> done =
      AddGroupOnFleet(*client_, LineageHeader(), group, proposal, deadline);
  if (!done.ok()) return Follow(done.status(), deadline);
  version_ = std::max(version_, done->version());
  // A pull finds the new parameters from that version on.
  stepped_version_ = std::max(stepped_version_, done->version());
  described_ = false;
  return Describe(deadline);
}

absl::StatusOr<LoadResult> OptimizerCore::Load(const StateDict& source,
                                               const LoadOptions& options) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<LoadSource> opened, LoadSource::Of(source));
  return Load(*opened, options);
}

absl::StatusOr<LoadResult> OptimizerCore::Load(const SafetensorsSource& source,
                                               const LoadOptions& options) {
  SHARDSTEP_RETURN_IF_ERROR(EnsureDescribed(client_->Now() + options.timeout));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<LoadSource> opened,
                             LoadSource::Open(source, *index_));
  return Load(*opened, options);
}

absl::StatusOr<LoadResult> OptimizerCore::Load(const LoadSource& source,
                                               const LoadOptions& options) {
  SHARDSTEP_RETURN_IF_ERROR(CheckQuiet("LoadStateDict"));
  const absl::Time deadline = client_->Now() + options.timeout;
  SHARDSTEP_RETURN_IF_ERROR(EnsureDescribed(deadline));
  const absl::StatusOr<v1::ProposeReply::Done> done =
      LoadFrom(source, *client_, LineageHeader(), *index_, options, deadline);
  if (!done.ok()) return Follow(done.status(), deadline);
  return AdoptLoad(*done, deadline);
}

absl::StatusOr<LoadResult> OptimizerCore::Load(const CheckpointSource& source,
                                               const LoadOptions& options) {
  SHARDSTEP_RETURN_IF_ERROR(CheckQuiet("LoadStateDict"));
  const absl::Time deadline = client_->Now() + options.timeout;
  const absl::StatusOr<v1::ProposeReply::Done> done =
      LoadFrom(source, *client_, LineageHeader(), options, deadline);
  if (!done.ok()) return Follow(done.status(), deadline);
  return AdoptLoad(*done, deadline);
}

absl::StatusOr<LoadResult> OptimizerCore::AdoptLoad(const v1::ProposeReply::Done& done,
                                                    absl::Time deadline) {
  // The load is done, whatever becomes of the questions behind it.
  Rewind(done.lineage(), done.version(), trainer_state_);
  LoadResult result;
  result.version = done.version();
  result.lineage = done.lineage();
  result.missing_keys.assign(done.missing_keys().begin(), done.missing_keys().end());
  result.unexpected_keys.assign(done.unexpected_keys().begin(), done.unexpected_keys().end());
  SHARDSTEP_RETURN_IF_ERROR(session_->Refresh(deadline));
  trainer_state_ = session_->opened().trainer_state();
  SHARDSTEP_RETURN_IF_ERROR(Describe(deadline));
  return result;
}

}  // namespace shardstep::internal
