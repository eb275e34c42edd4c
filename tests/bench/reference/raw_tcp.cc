#include "shardstep/tests/bench/reference/raw_tcp.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/raw_tcp_client.h"
#include "shardstep/tests/bench/reference/raw_tcp_wire.h"
#include "shardstep/tests/bench/reference/reference_process.h"
#include "shardstep/tests/bench/reference/reference_subject.h"
#include "shardstep/tests/bench/reference/rounds.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {
namespace {

class RawTcp final : public ReferenceSubject {
 public:
  RawTcp(const TransferWorkload& workload, bool sgd, std::unique_ptr<ReferenceProcess> server)
      : ReferenceSubject(workload, sgd, std::move(server)) {}

  absl::Status Connect() {
    for (int stream = 0; stream < workload().streams; ++stream) {
      RawStream push = MakeStream(stream, &gradients());
      SHARDSTEP_ASSIGN_OR_RETURN(push.socket, OpenRawTcp(server().port(), RawDirection::kPush));
      pushers_.emplace_back(std::move(push));
      RawStream pull = MakeStream(stream, &parameters());
      SHARDSTEP_ASSIGN_OR_RETURN(pull.socket, OpenRawTcp(server().port(), RawDirection::kPull));
      pullers_.emplace_back(std::move(pull));
    }
    return absl::OkStatus();
  }

 protected:
  absl::Status PushStream(int stream, Rounds* rounds) override {
    return pushers_[stream].Run(rounds);
  }
  absl::Status PullStream(int stream, Rounds* rounds) override {
    return pullers_[stream].Run(rounds);
  }
  absl::Status CheckPushed(int64_t rounds) const override {
    for (const RawPusher& pusher : pushers_) SHARDSTEP_RETURN_IF_ERROR(pusher.Check(rounds));
    return absl::OkStatus();
  }

 private:
  RawStream MakeStream(int stream, TransferTensors* values) const {
    RawStream made;
    made.tensors = TensorsOfStream(workload(), stream);
    made.bytes = workload().bytes;
    made.window = WindowOfStream(workload());
    made.values = values;
    return made;
  }

  std::vector<RawPusher> pushers_;
  std::vector<RawPuller> pullers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TransferSubject>> MakeRawTcp(const TransferWorkload& workload,
                                                            bool sgd) {
  SHARDSTEP_RETURN_IF_ERROR(Validate(workload));
  SHARDSTEP_ASSIGN_OR_RETURN(auto server, ReferenceProcess::Start("raw", workload, sgd));
  auto subject = std::make_unique<RawTcp>(workload, sgd, std::move(server));
  SHARDSTEP_RETURN_IF_ERROR(subject->Connect());
  return subject;
}

}  // namespace shardstep
