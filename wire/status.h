// absl::Status to grpc::Status and back, details included (grpc-status-details-bin holds a
// serialized v1.RichStatus, which is a google.rpc.Status to other languages' helpers). Pure
// functions, safe from any thread.
#ifndef SHARDSTEP_WIRE_STATUS_H_
#define SHARDSTEP_WIRE_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace shardstep {

// With details exactly if `status` has an ErrorDetail; cut to size as ToRichStatus does.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Code and message are gRPC's own; of the details the ErrorDetail is taken over, if they hold one.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_STATUS_H_
