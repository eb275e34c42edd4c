// ATen reports failure by exception; ours never leaves a function.
#ifndef SHARDSTEP_OPTIM_ATEN_STATUS_H_
#define SHARDSTEP_OPTIM_ATEN_STATUS_H_

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace shardstep {

// Runs `function` (no arguments, no result). RESOURCE_EXHAUSTED if memory ran out, INTERNAL with
// ATen's words for any other exception.
template <typename Function>
absl::Status CatchAten(Function&& function) {
  try {
    std::forward<Function>(function)();
    return absl::OkStatus();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("ATen: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("ATen: ", error.what()));
  }
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_ATEN_STATUS_H_
