// One of the servers that shardstep is compared with, for ReferenceProcess: prints its port in a
// line on standard output.

#include <cstdio>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "shardstep/tests/bench/reference/raw_tcp_server.h"
#include "shardstep/tests/bench/reference/textbook_server.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {
namespace {

void PrintPort(int port) {
  std::printf("%d\n", port);
  std::fflush(stdout);
}

absl::Status Serve(const std::string& kind, const TransferWorkload& workload, bool sgd) {
  if (kind == "raw") return ServeRawTcp(workload, sgd, PrintPort);
  const bool callbacks = kind == "textbook-callback";
  if (callbacks || kind == "textbook-sync") {
    return ServeTextbook(callbacks, workload, sgd, PrintPort);
  }
  return absl::InvalidArgumentError("no kind is called \"" + kind + "\"");
}

int Run(const std::string& kind, const TransferWorkload& workload, bool sgd) {
  const absl::Status status = Serve(kind, workload, sgd);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reference_server: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  std::string kind;
  bool sgd = false;
  shardstep::TransferWorkload workload;
  CLI::App app("A server of the comparison, on a free port of 127.0.0.1.");
  app.add_option("--kind", kind, "raw, textbook-sync or textbook-callback")->required();
  app.add_flag("--sgd", sgd, "Apply what is pushed");
  app.add_option("--tensors", workload.tensors)->capture_default_str();
  app.add_option("--bytes", workload.bytes, "Of each tensor")->capture_default_str();
  app.add_option("--streams", workload.streams)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return shardstep::Run(kind, workload, sgd);
}
