#include "shardstep/tests/bench/reference/textbook.h"

#include <grpcpp/grpcpp.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/reference_process.h"
#include "shardstep/tests/bench/reference/reference_subject.h"
#include "shardstep/tests/bench/reference/rounds.h"
#include "shardstep/tests/bench/reference/textbook_callback_client.h"
#include "shardstep/tests/bench/reference/textbook_sides.h"
#include "shardstep/tests/bench/reference/textbook_sync_client.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {
namespace {

class Textbook final : public ReferenceSubject {
 public:
  Textbook(const TransferWorkload& workload, bool callbacks, bool sgd,
           std::unique_ptr<ReferenceProcess> server)
      : ReferenceSubject(workload, sgd, std::move(server)), callbacks_(callbacks) {}

  absl::Status Connect() {
    grpc::ChannelArguments arguments;
    // Else all channels would share one connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    const std::string target = absl::StrCat("127.0.0.1:", server().port());
    for (int stream = 0; stream < workload().streams; ++stream) {
      const auto channel =
          grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
      if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + kTransferPatience))) {
        return absl::DeadlineExceededError("the textbook server cannot be reached");
      }
      stubs_.push_back(bench::Textbook::NewStub(channel));
    }
    return absl::OkStatus();
  }

 protected:
  absl::Status PushStream(int stream, Rounds* rounds) override {
    return Run<TextbookPush>(stream, &gradients(), rounds);
  }
  absl::Status PullStream(int stream, Rounds* rounds) override {
    return Run<TextbookPull>(stream, &parameters(), rounds);
  }
  absl::Status CheckPushed(int64_t) const override { return absl::OkStatus(); }

 private:
  template <class Side>
  absl::Status Run(int stream, TransferTensors* values, Rounds* rounds) {
    TextbookStream part;
    part.stub = stubs_[stream].get();
    part.values = values;
    part.tensors = TensorsOfStream(workload(), stream);
    part.bytes = workload().bytes;
    part.window = WindowOfStream(workload());
    if (callbacks_) return CallbackTextbookClient<Side>(part).Run(rounds);
    return SyncTextbookClient<Side>(part).Run(rounds);
  }

  const bool callbacks_;
  std::vector<std::unique_ptr<bench::Textbook::Stub>> stubs_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TransferSubject>> MakeTextbook(const TransferWorkload& workload,
                                                              bool callbacks, bool sgd) {
  SHARDSTEP_RETURN_IF_ERROR(Validate(workload));
  const char* const kind = callbacks ? "textbook-callback" : "textbook-sync";
  SHARDSTEP_ASSIGN_OR_RETURN(auto server, ReferenceProcess::Start(kind, workload, sgd));
  auto subject = std::make_unique<Textbook>(workload, callbacks, sgd, std::move(server));
  SHARDSTEP_RETURN_IF_ERROR(subject->Connect());
  return subject;
}

}  // namespace shardstep
