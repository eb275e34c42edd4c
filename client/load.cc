#include "shardstep/client/load.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/client/change_proposal.h"
#include "shardstep/client/load_feed.h"
#include "shardstep/client/state_write.h"
#include "shardstep/client/tensor_chunks.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"

namespace shardstep::internal {
namespace {

// Runs of source tensors that belong to one parameter become one entry.
void AddTensor(const LoadSource::Tensor& tensor, const OptimizerIndex& index,
               v1::LoadChange* change) {
  const int last = change->tensors_size() - 1;
  v1::LoadChange::Tensors* entry =
      last >= 0 && change->tensors(last).parameter() == tensor.parameter
          ? change->mutable_tensors(last)
          : nullptr;
  if (entry == nullptr) {
    entry = change->add_tensors();
    entry->set_parameter(tensor.parameter);
    if (index.Has(tensor.parameter)) {
      // What the source has of it was compared with this.
      const ParameterInfo& known = index.parameters()[*index.Find(tensor.parameter)];
      entry->set_dtype(DTypeToProto(known.dtype));
      for (int64_t size : known.sizes) entry->add_sizes(size);
    } else {
      entry->set_dtype(DTypeToProto(tensor.dtype));
      for (int64_t size : tensor.sizes) entry->add_sizes(size);
    }
  }
  if (tensor.state.empty()) {
    entry->set_value(true);
  } else {
    entry->add_states(tensor.state);
  }
}

absl::StatusOr<std::string> DigestOf(const LoadSource& source, const std::string& message) {
  uint32_t crc = Crc32c(message);
  uint64_t total = message.size();
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const LoadSource::Tensor& tensor = source.tensors()[i];
    SHARDSTEP_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(tensor.sizes, tensor.dtype));
    uint64_t offset = 0;
    while (offset < static_cast<uint64_t>(bytes)) {
      const uint64_t size = std::min(source.max_read_bytes(), bytes - offset);
      std::shared_ptr<const void> owner;
      SHARDSTEP_ASSIGN_OR_RETURN(const absl::string_view read,
                                 source.Read(i, offset, size, &owner));
      crc = ExtendCrc32c(crc, read);
      offset += size;
    }
    total += static_cast<uint64_t>(bytes);
  }
  return absl::StrCat(Crc32cHex(crc), "-", total);
}

absl::StatusOr<v1::ProposeReply::Done> Propose(const v1::LoadChange& load, const ClientCore& client,
                                               const v1::CallHeader& header, Change change,
                                               absl::Time deadline) {
  const PagedMessage pages(load.SerializeAsString());
  change.what = absl::StrCat("load into \"", header.optimizer(), "\"");
  change.fill = [&pages](uint32_t page, v1::ProposeRequest* request) {
    SHARDSTEP_ASSIGN_OR_RETURN(*request->mutable_load(), pages.page(page));
    return absl::OkStatus();
  };
  return ProposeChange(client, header, change, deadline);
}

}  // namespace

absl::StatusOr<v1::LoadChange> MakeLoadChange(const LoadSource& source, const OptimizerIndex& index,
                                              bool strict) {
  v1::LoadChange change;
  change.set_strict(strict);
  change.set_version(source.version());
  for (const ParamGroup& group : source.param_groups()) {
    v1::NamedGroup& named = *change.add_groups();
    *named.mutable_options() = OptionMapToProto(group.options);
    named.mutable_parameters()->Add(group.params.begin(), group.params.end());
  }
  const std::vector<bool> loaded = LoadedTensors(index, source);
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const LoadSource::Tensor& tensor = source.tensors()[i];
    SHARDSTEP_RETURN_IF_ERROR(CheckAgainst(index, tensor));
    if (loaded[i]) AddTensor(tensor, index, &change);
  }
  for (const auto& [rank, state] : source.trainer_states()) {
    v1::TrainerState& trainer = *change.add_trainers();
    trainer.set_trainer_rank(rank);
    trainer.set_state(state);
  }
  SHARDSTEP_ASSIGN_OR_RETURN(*change.mutable_digest(),
                             DigestOf(source, change.SerializeAsString()));
  return change;
}

absl::StatusOr<v1::ProposeReply::Done> LoadFrom(const LoadSource& source, const ClientCore& client,
                                                const v1::CallHeader& header,
                                                const OptimizerIndex& index,
                                                const LoadOptions& options, absl::Time deadline) {
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::LoadChange load,
                             MakeLoadChange(source, index, options.strict));
  Change change;
  change.stage = [&](const v1::ProposeReply::Staging& staging) -> absl::Status {
    v1::CallHeader session = header;
    session.clear_lineage();
    SHARDSTEP_ASSIGN_OR_RETURN(DescribedOptimizer described,
                               DescribeOptimizer(client, session, staging.staging(), deadline));
    const OptimizerIndex planned(std::move(described.description));
    v1::WriteBegin begin;
    *begin.mutable_header() = session;
    begin.mutable_header()->set_plan_id(staging.plan_id());
    begin.set_staging(staging.staging());
    SHARDSTEP_ASSIGN_OR_RETURN(
        const std::unique_ptr<LoadFeed> feed,
        LoadFeed::Make(source, planned, client.connection().num_servers(), options.progress));
    return WriteStateToAll(&client.connection(), begin, feed.get(), client.policy(), deadline);
  };
  return Propose(load, client, header, std::move(change), deadline);
}

absl::StatusOr<v1::ProposeReply::Done> LoadFrom(const CheckpointSource& source,
                                                const ClientCore& client,
                                                const v1::CallHeader& header,
                                                const LoadOptions& options, absl::Time deadline) {
  v1::LoadChange load;
  load.set_strict(options.strict);
  load.set_checkpoint_id(source.id);
  Change change;
  change.progress = options.progress;
  return Propose(load, client, header, std::move(change), deadline);
}

}  // namespace shardstep::internal
