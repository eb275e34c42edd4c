#include "shardstep/tests/bench/reference/textbook_server.h"

#include <grpcpp/grpcpp.h>

#include <memory>

#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/textbook_services.h"
#include "shardstep/tests/bench/reference/textbook_store.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {

absl::Status ServeTextbook(bool callbacks, const TransferWorkload& workload, bool sgd,
                           const std::function<void(int port)>& listening) {
  SHARDSTEP_RETURN_IF_ERROR(Validate(workload));
  TextbookStore store(workload, sgd);
  const std::unique_ptr<grpc::Service> service =
      callbacks ? MakeCallbackTextbookService(&store) : MakeSyncTextbookService(&store);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service.get());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) return absl::UnavailableError("the server cannot listen");
  listening(port);
  server->Wait();
  return absl::OkStatus();
}

}  // namespace shardstep
