#include "shardstep/wire/status.h"

#include <string>

#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

#define SHARDSTEP_SAME_CODE(grpc_code, absl_code)                  \
  static_assert(static_cast<int>(grpc::StatusCode::grpc_code) ==   \
                    static_cast<int>(absl::StatusCode::absl_code), \
                "gRPC's and Abseil's codes are the same numbers")
SHARDSTEP_SAME_CODE(OK, kOk);
SHARDSTEP_SAME_CODE(CANCELLED, kCancelled);
SHARDSTEP_SAME_CODE(UNKNOWN, kUnknown);
SHARDSTEP_SAME_CODE(INVALID_ARGUMENT, kInvalidArgument);
SHARDSTEP_SAME_CODE(DEADLINE_EXCEEDED, kDeadlineExceeded);
SHARDSTEP_SAME_CODE(NOT_FOUND, kNotFound);
SHARDSTEP_SAME_CODE(ALREADY_EXISTS, kAlreadyExists);
SHARDSTEP_SAME_CODE(PERMISSION_DENIED, kPermissionDenied);
SHARDSTEP_SAME_CODE(RESOURCE_EXHAUSTED, kResourceExhausted);
SHARDSTEP_SAME_CODE(FAILED_PRECONDITION, kFailedPrecondition);
SHARDSTEP_SAME_CODE(ABORTED, kAborted);
SHARDSTEP_SAME_CODE(OUT_OF_RANGE, kOutOfRange);
SHARDSTEP_SAME_CODE(UNIMPLEMENTED, kUnimplemented);
SHARDSTEP_SAME_CODE(INTERNAL, kInternal);
SHARDSTEP_SAME_CODE(UNAVAILABLE, kUnavailable);
SHARDSTEP_SAME_CODE(DATA_LOSS, kDataLoss);
SHARDSTEP_SAME_CODE(UNAUTHENTICATED, kUnauthenticated);
#undef SHARDSTEP_SAME_CODE

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const v1::RichStatus rich = ToRichStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(rich.code()), rich.message(),
                      rich.details().empty() ? std::string() : rich.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  v1::RichStatus rich;
  if (!rich.ParseFromString(status.error_details())) rich.Clear();
  rich.set_code(static_cast<int>(status.error_code()));
  rich.set_message(status.error_message());
  return FromRichStatus(rich);
}

}  // namespace shardstep
