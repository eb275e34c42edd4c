#include "shardstep/client/cli/fleet_status.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "shardstep/client/cli/table.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

std::string NameOf(const ServerStatus& server) {
  return absl::StrCat("server ", server.server_rank, " at ", server.address);
}

std::string StateOf(const ServerStatus& server) {
  if (!server.status.ok()) {
    return std::string(absl::StripPrefix(server.status.message(), NameOf(server) + ": "));
  }
  return server.serving ? "serving" : "not serving";
}

Json ToJson(const ServerStatus& server) {
  Json json{{"server_rank", server.server_rank},
            {"address", server.address},
            {"answers", server.status.ok()},
            {"serving", server.serving}};
  if (!server.status.ok()) {
    json["error"] = StateOf(server);
    return json;
  }
  json["version"] = server.version;
  json["incarnation"] = server.incarnation;
  json["numeric_fingerprint"] = absl::StrFormat("%08x", server.numeric_fingerprint);
  json["shard_bytes"] = server.shard_bytes;
  json["push_bytes"] = server.push_bytes;
  json["snapshot_bytes"] = server.snapshot_bytes;
  return json;
}

absl::Status Run(const FleetFlags& flags, std::ostream& out, std::ostream& /*err*/) {
  ClientOptions options;
  options.connect_timeout = absl::ZeroDuration();  // a server that is away is part of the answer
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags, options));
  SHARDSTEP_ASSIGN_OR_RETURN(const FleetStatus fleet, client.GetFleetStatus());
  PrintFleetStatus(fleet, flags, out);
  return AllServing(fleet);
}

}  // namespace

void PrintFleetStatus(const FleetStatus& fleet, const FleetFlags& flags, std::ostream& out) {
  if (flags.json) {
    Json servers = Json::array();
    for (const ServerStatus& server : fleet.servers) servers.push_back(ToJson(server));
    Print(out, {{"name", fleet.name},
                {"fleet", flags.fleet},
                {"durability", fleet.durability},
                {"checkpoints", fleet.checkpoints},
                {"servers", servers}});
    return;
  }
  out << "fleet \"" << fleet.name << "\" (" << flags.fleet << "), durability " << fleet.durability;
  if (!fleet.checkpoints.empty()) out << ", checkpoints " << fleet.checkpoints;
  out << "\n";
  Table table(
      {">server", "address", ">start", "numerics", ">shards", ">pushes", ">snapshots", "state"});
  for (const ServerStatus& server : fleet.servers) {
    if (!server.status.ok()) {
      table.AddRow({absl::StrCat(server.server_rank), server.address, "-", "-", "-", "-", "-",
                    StateOf(server)});
      continue;
    }
    table.AddRow(
        {absl::StrCat(server.server_rank), server.address, absl::StrCat(server.incarnation),
         absl::StrFormat("%08x", server.numeric_fingerprint), FormatBytes(server.shard_bytes),
         FormatBytes(server.push_bytes), FormatBytes(server.snapshot_bytes), StateOf(server)});
  }
  out << table.ToString();
}

absl::Status AllServing(const FleetStatus& fleet) {
  for (const ServerStatus& server : fleet.servers) {
    if (server.status.ok() && server.serving) continue;
    return absl::UnavailableError(absl::StrCat(NameOf(server), ": ", StateOf(server)));
  }
  return absl::OkStatus();
}

void AddFleetStatus(CLI::App* fleet, Context* context) {
  const auto flags = std::make_shared<FleetFlags>();
  AddFleetFlags(AddVerb(fleet, "status",
                        "Shows every server: its address, how often it was started (start), the "
                        "fingerprint of its "
                        "numerics, and its memory. Exits with 3 unless all serve.",
                        context, flags, Run),
                flags.get());
}

}  // namespace shardstep
