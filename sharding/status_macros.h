// The two macros by which an error travels up: return it at once, or take the value.
//
//   SHARDSTEP_RETURN_IF_ERROR(file.Flush());
//   SHARDSTEP_ASSIGN_OR_RETURN(const Plan plan, MakePlan(definition));
//
// Both may stand in any function that returns absl::Status or absl::StatusOr<T>. Both evaluate
// their expression once and return its status unchanged. SHARDSTEP_ASSIGN_OR_RETURN expands to
// several statements: it is not the body of an `if` without braces.
#ifndef SHARDSTEP_SHARDING_STATUS_MACROS_H_
#define SHARDSTEP_SHARDING_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define SHARDSTEP_INTERNAL_CONCAT_(a, b) a##b
#define SHARDSTEP_INTERNAL_CONCAT(a, b) SHARDSTEP_INTERNAL_CONCAT_(a, b)

// Returns the absl::Status that `expr` gives from the enclosing function if it is an error.
#define SHARDSTEP_RETURN_IF_ERROR(expr)                                                     \
  do {                                                                                      \
    if (absl::Status shardstep_internal_status = (expr); !shardstep_internal_status.ok()) { \
      return shardstep_internal_status;                                                     \
    }                                                                                       \
  } while (false)

// Moves the value of the absl::StatusOr `...` into `lhs`, a declaration or an assignable expression
// without commas outside parentheses, or returns its status from the enclosing function. Variadic
// so that the expression may have commas in template arguments.
#define SHARDSTEP_ASSIGN_OR_RETURN(lhs, ...) \
  SHARDSTEP_INTERNAL_ASSIGN_OR_RETURN(       \
      SHARDSTEP_INTERNAL_CONCAT(shardstep_internal_status_or_, __LINE__), lhs, __VA_ARGS__)

#define SHARDSTEP_INTERNAL_ASSIGN_OR_RETURN(status_or, lhs, ...) \
  auto status_or = (__VA_ARGS__);                                \
  if (!status_or.ok()) return std::move(status_or).status();     \
  lhs = *std::move(status_or)

#endif  // SHARDSTEP_SHARDING_STATUS_MACROS_H_
