#include "shardstep/tests/faults/errands.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

constexpr char kName[] = "errands";
// Of every call.
constexpr absl::Duration kTimeout = absl::Minutes(1);

template <typename Options>
Options Bounded() {
  Options options;
  options.timeout = kTimeout;
  return options;
}

}  // namespace

Errands::Errands(std::string fleet_file) : fleet_file_(std::move(fleet_file)) {
  thread_ = std::thread([this] {
    while (!stopping_ && status_.ok()) {
      status_ = Round();
      if (!status_.ok()) {
        status_ = absl::Status(status_.code(), absl::StrCat(doing(), ": ", status_.message()));
      }
      ++rounds_;
    }
    ended_ = true;
  });
}

Errands::~Errands() { static_cast<void>(Stop()); }

absl::Status Errands::Stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
  return status_;
}

absl::Status Errands::Round() {
  ClientOptions options;
  options.longest_backoff = absl::Milliseconds(250);
  options.call_timeout = kTimeout;
  doing_ = "connect";
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_file_, options));
  Floats first;
  first.Add("first", {12, 5}, 1, Rows(3));
  Floats second;
  second.Add("second", {9}, 2, Rows(3));
  {
    doing_ = "create";
    SHARDSTEP_ASSIGN_OR_RETURN(ShardedOptimizer optimizer,
                               client.CreateOptimizer(kName, first.named(), AdamOptions(0.01),
                                                      Synchronous(1), 0, Bounded<CreateOptions>()));
    doing_ = "step";
    SHARDSTEP_RETURN_IF_ERROR(PushAndStep(optimizer, first, WithTimeout(kTimeout)).status());
    doing_ = "add_param_group";
    SHARDSTEP_RETURN_IF_ERROR(
        optimizer.AddParamGroup({second.named(), {}}, Bounded<AddParamGroupOptions>()));
    doing_ = "state_dict";
    SHARDSTEP_ASSIGN_OR_RETURN(const StateDict dict,
                               optimizer.state_dict(Bounded<StateDictOptions>()));
    doing_ = "load_state_dict";
    SHARDSTEP_RETURN_IF_ERROR(optimizer.LoadStateDict(dict, Bounded<LoadOptions>()).status());
    doing_ = "checkpoint";
    SHARDSTEP_ASSIGN_OR_RETURN(const CheckpointSummary made,
                               client.Checkpoint(kName, Bounded<CheckpointOptions>()));
    doing_ = "restore";
    SHARDSTEP_RETURN_IF_ERROR(client.Restore(kName, made.id, Bounded<RestoreOptions>()).status());
  }
  doing_ = "delete";
  return client.DeleteOptimizer(kName);
}

}  // namespace shardstep
