#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "shardstep/client/cli/table.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Flags : FleetFlags {
  std::string name;
};

bool IsThere(const SessionSummary& session) { return session.session != 0; }

std::string StateOf(const SessionSummary& session) {
  std::vector<std::string> words;
  if (!IsThere(session)) words.push_back("no session");
  if (session.waited_for) words.push_back("waited for");
  if (session.in_step) words.push_back("in step");
  if (session.lapsed) words.push_back("lapsed");
  return absl::StrJoin(words, ", ");
}

Json ToJson(const SessionSummary& session) {
  Json json{{"trainer_rank", session.trainer_rank}, {"session", session.session}};
  json["last_seen_seconds"] =
      IsThere(session) ? Json(absl::ToDoubleSeconds(session.last_seen)) : Json();
  json["version"] = session.version;
  json["lapsed"] = session.lapsed;
  json["in_step"] = session.in_step;
  json["waited_for"] = session.waited_for;
  return json;
}

absl::Status Run(const Flags& flags, std::ostream& out, std::ostream& /*err*/) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<SessionSummary> sessions,
                             client.ListSessions(flags.name));
  Json json = Json::array();
  Table table({">trainer", ">session", ">last seen", ">version", "state"});
  for (const SessionSummary& session : sessions) {
    json.push_back(ToJson(session));
    const std::string last_seen =
        absl::StrFormat("%.1f s ago", absl::ToDoubleSeconds(session.last_seen));
    table.AddRow(
        {absl::StrCat(session.trainer_rank), IsThere(session) ? absl::StrCat(session.session) : "-",
         IsThere(session) ? last_seen : "-", absl::StrCat(session.version), StateOf(session)});
  }
  if (flags.json) {
    Print(out, {{"optimizer", flags.name}, {"sessions", json}});
  } else {
    out << (sessions.empty() ? "no sessions\n" : table.ToString());
  }
  return absl::OkStatus();
}

}  // namespace

void AddSessions(CLI::App* app, Context* context) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* const verb = AddVerb(
      app, "sessions",
      "Lists an optimizer's trainers: the number of the session, when it was last heard of, "
      "the version of its last step, and whether a step waits for it.",
      context, flags, Run);
  verb->add_option("name", flags->name, "The optimizer")->required();
  AddFleetFlags(verb, flags.get());
}

}  // namespace shardstep
