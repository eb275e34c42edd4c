// The verbs of shardctl. Each adds itself, its flags and what it does to the command line; when the
// command line names it, it runs, prints its result and leaves its error in the context. One
// thread.
#ifndef SHARDSTEP_CLIENT_CLI_VERBS_H_
#define SHARDSTEP_CLIENT_CLI_VERBS_H_

#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "shardstep/client/client.h"

namespace shardstep {

using Json = nlohmann::ordered_json;

struct Context {
  std::ostream& out;
  std::ostream& err;
  // UNAVAILABLE and DEADLINE_EXCEEDED: the fleet is; any other error: it refused.
  absl::Status status;
};

void AddFleetUp(CLI::App* fleet, Context* context);
void AddFleetDown(CLI::App* fleet, Context* context);
void AddFleetStatus(CLI::App* fleet, Context* context);
void AddOptimizers(CLI::App* app, Context* context);
void AddDescribe(CLI::App* app, Context* context);
void AddSessions(CLI::App* app, Context* context);
void AddDelete(CLI::App* app, Context* context);
void AddCheckpoint(CLI::App* app, Context* context);
void AddCheckpoints(CLI::App* app, Context* context);
void AddVerify(CLI::App* app, Context* context);
void AddRestore(CLI::App* app, Context* context);
void AddStateDict(CLI::App* app, Context* context);

// What all verbs on a running fleet have.
struct FleetFlags {
  std::string fleet = "fleet.json";
  bool json = false;
};
void AddFleetFlags(CLI::App* verb, FleetFlags* flags);
void AddJsonFlag(CLI::App* verb, bool* json);

// A connection to the fleet of `flags`; UNAVAILABLE also if there is no such fleet file.
absl::StatusOr<Client> ConnectToFleet(const FleetFlags& flags, const ClientOptions& options = {});

// Prints `json` with indentation.
void Print(std::ostream& out, const Json& json);

// A verb with flags of type Flags, which live as long as the command line. `run` is called with
// them once it is parsed.
template <typename Flags>
CLI::App* AddVerb(CLI::App* parent, const std::string& name, const std::string& description,
                  Context* context, const std::shared_ptr<Flags>& flags,
                  absl::Status (*run)(const Flags& flags, std::ostream& out, std::ostream& err)) {
  CLI::App* const verb = parent->add_subcommand(name, description);
  verb->callback(
      [context, flags, run] { context->status = run(*flags, context->out, context->err); });
  return verb;
}

// What the verbs on one checkpoint have.
struct CheckpointFlags : FleetFlags {
  std::string name;
  std::string id;  // empty: what the verb means then
};
// A verb `name NAME [--id ID]`.
void AddCheckpointVerb(CLI::App* app, const std::string& name, const std::string& description,
                       const std::string& id_description, Context* context,
                       absl::Status (*run)(const CheckpointFlags& flags, std::ostream& out,
                                           std::ostream& err));

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_VERBS_H_
