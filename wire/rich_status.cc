#include "shardstep/wire/rich_status.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

constexpr char kTypeUrl[] = "type.googleapis.com/shardstep.v1.ErrorDetail";

// The longest beginning of `text` that is within the limit and does not end within a UTF-8
// sequence.
absl::string_view CutMessage(absl::string_view text) {
  if (text.size() <= kMaxErrorMessageBytes) return text;
  size_t size = kMaxErrorMessageBytes;
  while (size > 0 && (text[size] & 0xC0) == 0x80) --size;
  return text.substr(0, size);
}

// What still travels of a detail that is too large: whoever pushes again what it names learns of
// the rest then.
std::string SerializeCut(v1::ErrorDetail detail) {
  while (detail.ByteSizeLong() > kMaxErrorDetailBytes && detail.missing_size() > 0) {
    auto* pushes = detail.mutable_missing(detail.missing_size() - 1)->mutable_pushes();
    pushes->DeleteSubrange(pushes->size() / 2, pushes->size() - pushes->size() / 2);
    if (pushes->empty()) detail.mutable_missing()->RemoveLast();
  }
  return detail.SerializeAsString();
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, std::string message, const v1::ErrorDetail& detail) {
  absl::Status status(code, message);
  status.SetPayload(kTypeUrl, absl::Cord(detail.SerializeAsString()));
  return status;
}

absl::Status MakeError(absl::StatusCode code, std::string message, v1::Reason reason) {
  v1::ErrorDetail detail;
  detail.set_reason(reason);
  detail.set_server_rank(-1);
  return MakeError(code, std::move(message), detail);
}

std::optional<v1::ErrorDetail> ErrorDetailOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kTypeUrl);
  v1::ErrorDetail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

v1::Reason ReasonOf(const absl::Status& status) {
  const std::optional<v1::ErrorDetail> detail = ErrorDetailOf(status);
  return detail.has_value() ? detail->reason() : v1::REASON_UNSPECIFIED;
}

absl::Duration RetryDelayOf(const absl::Status& status) {
  const std::optional<v1::ErrorDetail> detail = ErrorDetailOf(status);
  if (!detail.has_value()) return absl::ZeroDuration();
  return absl::Milliseconds(std::max<int64_t>(detail->retry_delay_ms(), 0));
}

v1::RichStatus ToRichStatus(const absl::Status& status) {
  v1::RichStatus rich;
  rich.set_code(static_cast<int>(status.code()));
  rich.set_message(std::string(CutMessage(status.message())));
  if (const std::optional<v1::ErrorDetail> detail = ErrorDetailOf(status); detail.has_value()) {
    google::protobuf::Any* any = rich.add_details();
    any->set_type_url(kTypeUrl);
    any->set_value(SerializeCut(*detail));
  }
  return rich;
}

absl::Status FromRichStatus(const v1::RichStatus& rich) {
  if (rich.code() == 0) return absl::OkStatus();
  const bool known =
      rich.code() > 0 && rich.code() <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  absl::Status status(
      known ? static_cast<absl::StatusCode>(rich.code()) : absl::StatusCode::kUnknown,
      rich.message());
  for (const google::protobuf::Any& any : rich.details()) {
    v1::ErrorDetail detail;
    if (any.type_url() != kTypeUrl || !detail.ParseFromString(any.value())) continue;
    status.SetPayload(kTypeUrl, absl::Cord(any.value()));
    break;
  }
  return status;
}

}  // namespace shardstep
