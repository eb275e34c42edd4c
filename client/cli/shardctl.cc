#include "shardstep/client/cli/shardctl.h"

#include <algorithm>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "shardstep/client/cli/verbs.h"

namespace shardstep {
namespace {

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kDone;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kFleetUnavailable;
    default:
      return kRefused;
  }
}

}  // namespace

int RunShardctl(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err) {
  CLI::App app("Starts, shows and tends a fleet of shardstep servers.", "shardctl");
  app.footer("Exit codes: 0 done, 1 refused, 2 wrong usage, 3 fleet unavailable.");
  app.require_subcommand(1);
  Context context{out, err, absl::OkStatus()};
  CLI::App* const fleet = app.add_subcommand("fleet", "Starts, stops and shows the servers.");
  fleet->require_subcommand(1);
  AddFleetUp(fleet, &context);
  AddFleetDown(fleet, &context);
  AddFleetStatus(fleet, &context);
  AddOptimizers(&app, &context);
  AddDescribe(&app, &context);
  AddSessions(&app, &context);
  AddCheckpoint(&app, &context);
  AddCheckpoints(&app, &context);
  AddVerify(&app, &context);
  AddRestore(&app, &context);
  AddStateDict(&app, &context);
  AddDelete(&app, &context);

  try {
    // CLI11 takes them from the back.
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    return app.exit(error, out, err) == 0 ? kDone : kUsage;
  }
  if (!context.status.ok()) err << "shardctl: " << context.status.message() << std::endl;
  return ExitCode(context.status);
}

}  // namespace shardstep
