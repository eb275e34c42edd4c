// Errors with machine-readable details: absl::Status carries a v1.ErrorDetail as a payload,
// v1.RichStatus is the same as a message. Knows no gRPC (status.h does). Pure functions, safe from
// any thread.
#ifndef SHARDSTEP_WIRE_RICH_STATUS_H_
#define SHARDSTEP_WIRE_RICH_STATUS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/v1/common.pb.h"

namespace shardstep {

// An error of `code`, which is not OK, with `message` and `detail`.
absl::Status MakeError(absl::StatusCode code, std::string message, const v1::ErrorDetail& detail);
// The same where the reason is all there is to tell.
absl::Status MakeError(absl::StatusCode code, std::string message, v1::Reason reason);

// The detail that MakeError or FromRichStatus put into `status`, if any.
std::optional<v1::ErrorDetail> ErrorDetailOf(const absl::Status& status);
// The detail's reason; REASON_UNSPECIFIED without a detail.
v1::Reason ReasonOf(const absl::Status& status);
// How long the detail asks to wait before the next attempt; zero without a detail.
absl::Duration RetryDelayOf(const absl::Status& status);

// OK becomes code 0 and vice versa. Of a status's payloads only the ErrorDetail travels. What does
// not fit is cut: a message behind kMaxErrorMessageBytes, and the last entries of `missing` where a
// detail is above kMaxErrorDetailBytes.
v1::RichStatus ToRichStatus(const absl::Status& status);
// A code that gRPC does not define becomes UNKNOWN; details that are no ErrorDetail are dropped.
absl::Status FromRichStatus(const v1::RichStatus& rich);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_RICH_STATUS_H_
