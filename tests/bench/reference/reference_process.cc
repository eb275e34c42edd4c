#include "shardstep/tests/bench/reference/reference_process.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/eventually.h"

namespace shardstep {

absl::StatusOr<std::unique_ptr<ReferenceProcess>> ReferenceProcess::Start(
    const std::string& kind, const TransferWorkload& workload, bool sgd) {
  std::vector<std::string> arguments = {
      RunfilePath("tests/bench/reference/reference_server"), absl::StrCat("--kind=", kind),
      absl::StrCat("--tensors=", workload.tensors), absl::StrCat("--bytes=", workload.bytes),
      absl::StrCat("--streams=", workload.streams)};
  if (sgd) arguments.emplace_back("--sgd");
  const std::string output = absl::StrCat(testing::TempDir(), "/reference-", getpid());
  // One with the same id may have been killed before it removed its own.
  std::remove(output.c_str());
  SHARDSTEP_ASSIGN_OR_RETURN(
      auto child, ChildProcess::Start(arguments, output, ChildProcess::StandardError::kInherited));
  int port = 0;
  const auto listens = [&] {
    std::ifstream file(output);
    return file >> port && file.peek() == '\n';
  };
  const bool done =
      Eventually([&] { return listens() || child->ExitCode(); }, /*patience=*/absl::Minutes(1));
  std::remove(output.c_str());
  if (!done) return absl::DeadlineExceededError("the reference server does not come up");
  if (port == 0) return absl::UnavailableError("the reference server ended at its start");
  return std::unique_ptr<ReferenceProcess>(new ReferenceProcess(std::move(child), port));
}

}  // namespace shardstep
