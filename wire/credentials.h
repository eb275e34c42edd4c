// Who may connect: for now whoever reaches the port, so servers listen on loopback unless told
// otherwise. Pure functions, safe from any thread.
#ifndef SHARDSTEP_WIRE_CREDENTIALS_H_
#define SHARDSTEP_WIRE_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shardstep {

std::shared_ptr<grpc::ServerCredentials> ServerCredentials();
std::shared_ptr<grpc::ChannelCredentials> ClientCredentials();

// Whether `address` ("127.0.0.1:7400", "[::1]:0", "localhost:7400", each also without port) can
// only be reached from this machine: 127.0.0.0/8, ::1 and the name localhost.
bool IsLoopback(absl::string_view address);

// INVALID_ARGUMENT if a server must not listen on `address`: not loopback and not `insecure`.
absl::Status CheckListenAddress(absl::string_view address, bool insecure);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_CREDENTIALS_H_
