// OptimizerCore: what a ShardedOptimizer does, above pushes and pulls: steps (optimizer_core.cc),
// changes of other kinds and what the changes of others mean for the handle (optimizer_changes.cc).
#ifndef SHARDSTEP_CLIENT_OPTIMIZER_CORE_H_
#define SHARDSTEP_CLIENT_OPTIMIZER_CORE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/load_source.h"
#include "shardstep/client/named_tensor.h"
#include "shardstep/client/optimizer_calls.h"
#include "shardstep/client/pull_core.h"
#include "shardstep/client/pushes.h"
#include "shardstep/client/session.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/client/state_dict_stream.h"
#include "shardstep/v1/common.pb.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// The open push of a handle; outlives the handle if need be.
class PushCore {
 public:
  PushCore(std::shared_ptr<Pushes> pushes, Pushes::PushId id)
      : pushes_(std::move(pushes)), id_(id) {}
  ~PushCore() { pushes_->Abandon(id_); }  // nothing, once it is finished

  Pushes& pushes() { return *pushes_; }
  Pushes::PushId id() const { return id_; }

 private:
  const std::shared_ptr<Pushes> pushes_;
  const Pushes::PushId id_;
};

// Methods as ShardedOptimizer's, which documents them. Not thread-safe.
class OptimizerCore {
 public:
  // `described` is the live optimizer; `regions` what `session` declared.
  OptimizerCore(std::shared_ptr<const ClientCore> client, std::unique_ptr<Session> session,
                DescribedOptimizer described, DeclaredRegions regions);

  const std::string& name() const { return session_->header().optimizer(); }
  int trainer_rank() const { return session_->trainer_rank(); }
  uint64_t version() const { return version_; }
  uint64_t lineage() const { return lineage_; }
  uint64_t durable_version() const { return durable_version_; }
  const std::vector<ParameterInfo>& parameters() const { return index_->parameters(); }
  const std::vector<ParamGroup>& param_groups() const { return param_groups_; }
  const std::string& trainer_state() const { return trainer_state_; }
  uint64_t last_step_version() const { return last_step_version_; }

  absl::Status SetOption(int group, absl::string_view option, OptionValue value);
  absl::Status SetTrainerState(std::string bytes);
  absl::StatusOr<std::shared_ptr<PushCore>> StartPush(const PushOptions& options);
  absl::Status ZeroGrad(bool set_to_none);
  absl::StatusOr<StepResult> Step(const StepOptions& options);
  absl::StatusOr<PullResult> Pull(absl::Span<const NamedTensor> into, const PullOptions& options);
  absl::Status AddParamGroup(const ParameterGroup& group, const AddParamGroupOptions& options);
  absl::StatusOr<StateDict> ReadStateDict(const StateDictOptions& options);
  absl::StatusOr<std::unique_ptr<StateDictStream>> OpenStateDict(const StateDictOptions& options);
  absl::StatusOr<SaveResult> SaveStateDict(const std::string& path, const SaveOptions& options);
  absl::StatusOr<LoadResult> Load(const StateDict& source, const LoadOptions& options);
  absl::StatusOr<LoadResult> Load(const SafetensorsSource& source, const LoadOptions& options);
  absl::StatusOr<LoadResult> Load(const CheckpointSource& source, const LoadOptions& options);

 private:
  // A step that was called and whose outcome is not known.
  struct PendingStep {
    v1::StepRequest request;
    // When the coordinator last said that it is not committed; at first: when it was made.
    absl::Time heard;
    // The coordinator may have it: false before the first call, and after an answer that an attempt
    // is dead.
    bool in_flight = false;
    // The coordinator's last answer that it waits for somebody.
    std::optional<v1::StepReply::Waiting> waiting;
    // OK if that was its last answer, else the error, one that calling again mends.
    absl::Status interrupted;
    // When the last of either came.
    absl::Time answered = absl::InfinitePast();
  };

  v1::StepRequest MakeRequest(const StepOptions& options);
  // Calls until the pending step has an outcome or `deadline` is over.
  absl::StatusOr<v1::StepReply::Committed> RunStep(absl::Time started, absl::Time deadline);
  // What the coordinator knows of it; nullopt: it is to be called again.
  absl::StatusOr<std::optional<v1::StepReply::Committed>> AskStatus(absl::Time deadline);
  // Whether the step goes on after this error; readies what the next call needs.
  bool Continues(const absl::Status& status, absl::Time deadline);
  // Others added parameters: the pending step goes on under the new plan.
  absl::Status FollowPlan(absl::Time deadline);
  StepResult Commit(const v1::StepReply::Committed& committed);
  absl::Status Fail(const absl::Status& status, absl::Time deadline);

  // The session's header with the lineage that the handle is of.
  v1::CallHeader LineageHeader() const;
  // Parameters, plan and groups as they are now. What this handle has set and not sent yet stays.
  absl::Status Describe(absl::Time deadline);
  // Before a call: describes, where that is due and failed before.
  absl::Status EnsureDescribed(absl::Time deadline);
  // Another history: pushes and options set are dropped.
  void Rewind(uint64_t lineage, uint64_t version, std::string trainer_state);
  // The status of a call that has until `deadline`; if it says that the history was replaced, the
  // handle follows.
  absl::Status Follow(const absl::Status& status, absl::Time deadline);
  absl::Status CheckQuiet(absl::string_view call) const;
  absl::StatusOr<LoadResult> Load(const LoadSource& source, const LoadOptions& options);
  // After a load that is done.
  absl::StatusOr<LoadResult> AdoptLoad(const v1::ProposeReply::Done& done, absl::Time deadline);
  uint64_t AtLeast(uint64_t asked) const;

  std::string StepName() const;
  // ", last durable version 400", if one is known.
  std::string LastDurable() const;
  absl::Status StillWaiting(absl::Duration waited) const;

  const std::shared_ptr<const ClientCore> client_;
  const std::unique_ptr<Session> session_;
  std::shared_ptr<const OptimizerIndex> index_;
  const std::shared_ptr<Pushes> pushes_;
  PullCore pull_;

  std::vector<ParamGroup> param_groups_;
  std::deque<v1::OptionSetting> set_options_;  // since the last acknowledged step
  std::string trainer_state_;
  const uint64_t last_step_version_;
  uint64_t version_;
  uint64_t lineage_;
  uint64_t durable_version_;
  uint64_t stepped_version_ = 0;  // of this handle's last step
  uint64_t pulled_version_;       // what gradients are computed on
  uint64_t next_call_ = 1;
  std::optional<PendingStep> pending_;
  bool described_ = true;  // index_ and param_groups_ are those of lineage_
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_OPTIMIZER_CORE_H_
