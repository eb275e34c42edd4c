#include "shardstep/wire/rich_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/common.pb.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

v1::ErrorDetail Missing() {
  v1::ErrorDetail detail;
  detail.set_reason(v1::MISSING);
  detail.set_optimizer("digits");
  detail.set_version(17);
  detail.set_retry_delay_ms(250);
  v1::MissingPushes* missing = detail.add_missing();
  missing->set_server_rank(2);
  v1::PushRange* range = missing->add_pushes();
  range->set_session(5);
  range->set_first(8);
  range->set_last(9);
  return detail;
}

TEST(RichStatusTest, AnErrorKeepsItsDetail) {
  const absl::Status status = MakeError(absl::StatusCode::kAborted, "step 17", Missing());
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted, "step 17"));
  ASSERT_TRUE(ErrorDetailOf(status).has_value());
  EXPECT_EQ(ErrorDetailOf(status)->SerializeAsString(), Missing().SerializeAsString());
  EXPECT_EQ(ReasonOf(status), v1::MISSING);
  EXPECT_EQ(RetryDelayOf(status), absl::Milliseconds(250));
}

TEST(RichStatusTest, AReasonAloneNamesNoServer) {
  const absl::Status status = MakeError(absl::StatusCode::kFailedPrecondition, "x", v1::FENCED);
  EXPECT_EQ(ReasonOf(status), v1::FENCED);
  EXPECT_EQ(ErrorDetailOf(status)->server_rank(), -1);
}

TEST(RichStatusTest, WithoutDetail) {
  const absl::Status status = absl::NotFoundError("x");
  EXPECT_FALSE(ErrorDetailOf(status).has_value());
  EXPECT_EQ(ReasonOf(status), v1::REASON_UNSPECIFIED);
  EXPECT_EQ(ReasonOf(absl::OkStatus()), v1::REASON_UNSPECIFIED);
  EXPECT_EQ(RetryDelayOf(status), absl::ZeroDuration());
  EXPECT_TRUE(ToRichStatus(status).details().empty());
}

TEST(RichStatusTest, ANegativeRetryDelayIsNone) {
  v1::ErrorDetail detail;
  detail.set_retry_delay_ms(-5);
  EXPECT_EQ(RetryDelayOf(MakeError(absl::StatusCode::kUnavailable, "x", detail)),
            absl::ZeroDuration());
}

TEST(RichStatusTest, RoundTripOfEveryCode) {
  for (int code = 0; code <= 16; ++code) {
    const auto absl_code = static_cast<absl::StatusCode>(code);
    const absl::Status status =
        code == 0 ? absl::OkStatus() : MakeError(absl_code, "why", Missing());
    const v1::RichStatus rich = ToRichStatus(status);
    EXPECT_EQ(rich.code(), code);
    EXPECT_EQ(FromRichStatus(rich), status);
  }
}

TEST(RichStatusTest, WhatAPeerMayNotSay) {
  v1::RichStatus rich;
  rich.set_code(17);
  rich.set_message("x");
  google::protobuf::Any* foreign = rich.add_details();
  foreign->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  foreign->set_value("y");
  google::protobuf::Any* garbage = rich.add_details();
  garbage->set_type_url("type.googleapis.com/shardstep.v1.ErrorDetail");
  garbage->set_value("\xFF");
  EXPECT_EQ(FromRichStatus(rich), absl::UnknownError("x"));
  rich.set_code(-1);
  EXPECT_EQ(FromRichStatus(rich), absl::UnknownError("x"));
  ToRichStatus(absl::UnknownError("x"));
}

TEST(RichStatusTest, CutsALongMessageBetweenCharacters) {
  std::string message(kMaxErrorMessageBytes - 1, 'x');
  message += "\xC3\xA9 and so on";  // a letter of two bytes across the limit
  EXPECT_EQ(ToRichStatus(absl::NotFoundError(message)).message(),
            std::string(kMaxErrorMessageBytes - 1, 'x'));
}

TEST(RichStatusTest, CutsALongListOfMissingPushes) {
  v1::ErrorDetail detail = Missing();
  for (int server = 0; server < 3; ++server) {
    v1::MissingPushes* missing = detail.add_missing();
    for (int i = 0; i < 5000; ++i) {
      v1::PushRange* range = missing->add_pushes();
      range->set_session(i + 1000);
      range->set_first(1'000'000);
      range->set_last(1'000'000);
    }
  }
  const absl::Status status = MakeError(absl::StatusCode::kAborted, "x", detail);
  const v1::RichStatus rich = ToRichStatus(status);
  EXPECT_LE(rich.ByteSizeLong(), kMaxErrorDetailBytes + 100);
  const v1::ErrorDetail arrived = ErrorDetailOf(FromRichStatus(rich)).value();
  EXPECT_EQ(arrived.reason(), v1::MISSING);
  ASSERT_GT(arrived.missing_size(), 1);
  EXPECT_EQ(arrived.missing(0).SerializeAsString(), detail.missing(0).SerializeAsString());
  EXPECT_EQ(arrived.missing(1).SerializeAsString(), detail.missing(1).SerializeAsString());
}

}  // namespace
}  // namespace shardstep
