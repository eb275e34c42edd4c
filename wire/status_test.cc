#include "shardstep/wire/status.h"

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/common.pb.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

TEST(StatusTest, RoundTripWithDetail) {
  const absl::Status status =
      MakeError(absl::StatusCode::kFailedPrecondition, "lost", v1::SHARDS_LOST);
  const grpc::Status grpc_status = ToGrpcStatus(status);
  EXPECT_EQ(grpc_status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(grpc_status.error_message(), "lost");
  EXPECT_EQ(FromGrpcStatus(grpc_status), status);
}

TEST(StatusTest, RoundTripWithoutDetail) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_OK(FromGrpcStatus(grpc::Status::OK));
  const absl::Status status = absl::UnavailableError("try again");
  EXPECT_EQ(ToGrpcStatus(status).error_details(), "");
  EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status);
}

// The bytes of google.rpc.Status{code: 9, message: "x", details: [Any{...}]}, field by field.
TEST(StatusTest, DetailsAreThoseOfGoogleRpcStatus) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::FENCED);
  const std::string url = "type.googleapis.com/shardstep.v1.ErrorDetail";
  std::string any = "\x0A";
  any += static_cast<char>(url.size());
  any += url + "\x12\x02\x08\x05";
  std::string expected = "\x08\x09\x12\x01x\x1A";
  expected += static_cast<char>(any.size());
  expected += any;
  EXPECT_EQ(
      ToGrpcStatus(MakeError(absl::StatusCode::kFailedPrecondition, "x", detail)).error_details(),
      expected);
}

TEST(StatusTest, GarbageInTheDetailsDoesNotMatter) {
  const grpc::Status grpc_status(grpc::StatusCode::ABORTED, "x", "\xFF garbage");
  EXPECT_EQ(FromGrpcStatus(grpc_status), absl::AbortedError("x"));
}

TEST(StatusTest, GrpcsOwnCodeHolds) {
  v1::RichStatus other;
  other.set_code(5);
  other.set_message("other");
  const grpc::Status grpc_status(grpc::StatusCode::ABORTED, "x", other.SerializeAsString());
  EXPECT_EQ(FromGrpcStatus(grpc_status), absl::AbortedError("x"));
}

}  // namespace
}  // namespace shardstep
