#include "shardstep/wire/deadline.h"

#include "absl/strings/str_cat.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

absl::Status CheckDeadline(absl::string_view call, absl::Time deadline, absl::Time now) {
  const absl::Duration left = deadline - now;
  if (left <= kMaxDeadline) return absl::OkStatus();
  // gRPC's infinity is the largest number of its clock, centuries from now.
  const bool none = left > absl::Hours(24 * 365 * 100);
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(
          call, ": ",
          none ? "no deadline" : absl::StrCat("deadline in ", absl::ToInt64Seconds(left), " s"),
          ", expected one within ", absl::ToInt64Seconds(kMaxDeadline), " s"),
      v1::DEADLINE_REQUIRED);
}

}  // namespace shardstep
