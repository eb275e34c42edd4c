// A trainer for the interchange with Python: creates or attaches to an optimizer, may load a
// state_dict that Python wrote, and makes one step with the gradients of each file.
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/option_json.h"
#include "shardstep/checkpoint/safetensors_file.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

constexpr int64_t kMaxGroupsBytes = 1 << 20;

struct Flags {
  std::string fleet;
  std::string name;
  std::string kind;
  std::string parameters;
  std::string groups;
  std::string load;
  std::string load_groups;
  std::vector<std::string> gradients;
};

// Tensors under their plain names.
absl::StatusOr<std::vector<std::pair<std::string, HostTensor>>> ReadTensors(
    const std::string& path) {
  SHARDSTEP_ASSIGN_OR_RETURN(const SafetensorsReader file,
                             SafetensorsReader::Open(PosixFileSystem(), path));
  std::vector<std::pair<std::string, HostTensor>> tensors;
  for (size_t i = 0; i < file.entries().size(); ++i) {
    const SafetensorsEntry& entry = file.entries()[i];
    HostTensor tensor{entry.dtype, entry.sizes, {}};
    tensor.bytes.resize(static_cast<size_t>(entry.end - entry.begin));
    SHARDSTEP_RETURN_IF_ERROR(file.Read(i, 0, tensor.bytes.data(), entry.end - entry.begin));
    tensors.emplace_back(entry.name, std::move(tensor));
  }
  return tensors;
}

// A matrix is cut into rows over all three servers, with two shards on the first one, whose
// checkpoint then has two files; the planner places what is smaller.
std::optional<ShardingSpec> SpecFor(const HostTensor& tensor) {
  if (tensor.sizes.size() < 2) return std::nullopt;
  return Chunk{0, {{0, "cpu"}, {1, "cpu"}, {2, "cpu"}, {0, "cpu"}}};
}

absl::StatusOr<ShardedOptimizer> OpenOptimizer(Client& client, const Flags& flags) {
  SHARDSTEP_ASSIGN_OR_RETURN(auto values, ReadTensors(flags.parameters));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string json,
                             ReadWholeFile(PosixFileSystem(), flags.groups, kMaxGroupsBytes));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<ParamGroup> groups, ParamGroupsFromJson(json));
  std::vector<ParameterGroup> given;
  for (const ParamGroup& group : groups) {
    ParameterGroup& next = given.emplace_back();
    next.options = group.options;
    for (const std::string& name : group.params) {
      for (auto& [candidate, value] : values) {
        if (candidate != name) continue;
        NamedTensor& parameter = next.parameters.emplace_back();
        parameter.name = name;
        parameter.value = {value.bytes.data(), value.dtype, value.sizes};
        // Its matrices are not cut.
        if (flags.kind != "Muon") parameter.spec = SpecFor(value);
      }
    }
  }
  return client.CreateOptimizer(flags.name, given, OptimizerOptions{flags.kind, {}}, Synchronous(1),
                                /*trainer_rank=*/0);
}

// SparseAdam takes rows only: it gets all of them.
absl::Status AddAllRows(const std::string& name, const HostTensor& gradient, GradientPush& push) {
  std::vector<int64_t> rows(gradient.sizes.at(0));
  std::iota(rows.begin(), rows.end(), 0);
  return push.AddRows(name, {rows, gradient.view()});
}

absl::Status StepWith(const std::string& path, bool by_rows, ShardedOptimizer& optimizer) {
  SHARDSTEP_ASSIGN_OR_RETURN(const auto gradients, ReadTensors(path));
  SHARDSTEP_ASSIGN_OR_RETURN(GradientPush push, optimizer.StartPush());
  for (const auto& [name, gradient] : gradients) {
    SHARDSTEP_RETURN_IF_ERROR(by_rows ? AddAllRows(name, gradient, push)
                                      : push.Add(name, gradient.view()));
  }
  SHARDSTEP_RETURN_IF_ERROR(push.Finish());
  return optimizer.Step().status();
}

absl::Status Run(const Flags& flags) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(flags.fleet));
  SHARDSTEP_ASSIGN_OR_RETURN(ShardedOptimizer optimizer, OpenOptimizer(client, flags));
  if (!flags.load.empty()) {
    SafetensorsSource source;
    source.path = flags.load;
    source.param_groups_json_path = flags.load_groups;
    SHARDSTEP_RETURN_IF_ERROR(optimizer.LoadStateDict(source).status());
  }
  for (const std::string& path : flags.gradients)
    SHARDSTEP_RETURN_IF_ERROR(StepWith(path, flags.kind == "SparseAdam", optimizer));
  return absl::OkStatus();
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::Flags flags;
  CLI::App app("Steps an optimizer with gradients that Python computed.");
  app.add_option("--fleet", flags.fleet, "Fleet file")->required();
  app.add_option("--name", flags.name, "The optimizer's name")->required();
  app.add_option("--kind", flags.kind, "SGD, Adam, ...")->required();
  app.add_option("--parameters", flags.parameters, "Initial parameters (safetensors)")->required();
  app.add_option("--groups", flags.groups, "Groups with options and names (JSON)")->required();
  app.add_option("--load", flags.load, "A state_dict to load first (safetensors)");
  app.add_option("--load-groups", flags.load_groups, "Its groups (JSON)");
  app.add_option("--gradients", flags.gradients, "A step for each of these files (safetensors)");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = shardstep::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "trainer: %s\n", std::string(status.message()).c_str());
  return 1;
}
