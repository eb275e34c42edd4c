#include "shardstep/server/checkpoint_facts.h"

#include <map>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "shardstep/checkpoint/shard_files.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

FileRecord RecordOf(const v1::CheckpointFile& file) {
  FileRecord record;
  record.name = file.name();
  record.bytes = static_cast<int64_t>(file.bytes());
  record.sha256 = file.sha256();
  record.chunk_bytes = static_cast<int64_t>(file.chunk_bytes());
  record.crc32c.assign(file.crc32c().begin(), file.crc32c().end());
  return record;
}

// Which of the parameters' values and states the files have.
void AddTensors(const CheckpointReader& reader, v1::CheckpointFacts* facts) {
  const Manifest& manifest = reader.manifest();
  for (size_t i = 0; i < manifest.definition.parameters.size(); ++i) {
    const std::string& name = manifest.definition.parameters[i].name;
    v1::StagedChange::Tensors* tensors = facts->add_tensors();
    tensors->set_parameter(i);
    tensors->set_value(reader.tensors().count(ParameterKey(name)) > 0);
    for (size_t k = 0; k < manifest.states.size(); ++k) {
      if (reader.tensors().count(StateKey(name, manifest.states[k].name)) > 0) {
        tensors->add_states(k + 1);
      }
    }
  }
}

}  // namespace

absl::StatusOr<Manifest> ManifestFromFacts(const v1::CheckpointFacts& facts) {
  Manifest manifest;
  SHARDSTEP_ASSIGN_OR_RETURN(OptimizerDescription description,
                             DescriptionFromProto(facts.description()));
  manifest.optimizer = description.definition.name;
  manifest.id = facts.checkpoint_id();
  manifest.automatic = facts.automatic();
  manifest.version = facts.version();
  manifest.lineage = facts.lineage();
  manifest.lineage_ordinal = facts.lineage_ordinal();
  manifest.parent_lineage = facts.parent_lineage();
  manifest.numeric_fingerprint = facts.numeric_fingerprint();
  manifest.created_groups = facts.description().created_groups() == 0
                                ? description.definition.groups.size()
                                : facts.description().created_groups();
  manifest.definition = std::move(description.definition);
  manifest.groups = std::move(description.groups);
  manifest.states = std::move(description.states);
  manifest.plan = std::move(description.plan);
  for (const v1::TrainerState& trainer : facts.description().trainers()) {
    manifest.trainers.push_back({trainer.trainer_rank(), trainer.session(), trainer.last_call(),
                                 trainer.last_version(), trainer.state()});
  }
  manifest.last_session = facts.last_session();
  for (const v1::CheckpointFile& file : facts.files()) manifest.files.push_back(RecordOf(file));
  return manifest;
}

v1::CheckpointFacts FactsOf(const CheckpointReader& reader) {
  const Manifest& manifest = reader.manifest();
  v1::CheckpointFacts facts;
  facts.set_checkpoint_id(manifest.id);
  facts.set_automatic(manifest.automatic);
  facts.set_version(manifest.version);
  facts.set_lineage(manifest.lineage);
  facts.set_lineage_ordinal(manifest.lineage_ordinal);
  facts.set_parent_lineage(manifest.parent_lineage);
  facts.set_numeric_fingerprint(manifest.numeric_fingerprint);
  *facts.mutable_description() =
      DescriptionToProto({manifest.definition, manifest.plan, manifest.groups, manifest.states});
  facts.mutable_description()->set_created_groups(manifest.created_groups);
  for (const TrainerRecord& trainer : manifest.trainers) {
    v1::TrainerState* state = facts.mutable_description()->add_trainers();
    state->set_trainer_rank(trainer.trainer_rank);
    state->set_session(trainer.session);
    state->set_last_call(trainer.last_call);
    state->set_last_version(trainer.last_version);
    state->set_state(trainer.trainer_state);
  }
  facts.set_last_session(manifest.last_session);
  AddTensors(reader, &facts);
  return facts;
}

}  // namespace shardstep
