// GoogleTest matchers and macros for absl::Status and absl::StatusOr:
//
//   EXPECT_OK(server.Start());
//   ASSERT_OK_AND_ASSIGN(const Plan plan, MakePlan(definition));
//   EXPECT_THAT(Count(), IsOkAndHolds(Gt(3)));
//   EXPECT_THAT(Parse("x"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'x'")));
//
// Where a status was not expected, the failure message is that status.
#ifndef SHARDSTEP_TESTS_STATUS_MATCHERS_H_
#define SHARDSTEP_TESTS_STATUS_MATCHERS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardstep {
namespace internal {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }

template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& value) {
  return value.status();
}

// Matches a StatusOr that is OK and whose value `inner` matches.
template <typename Inner>
class IsOkAndHoldsMatcher {
 public:
  explicit IsOkAndHoldsMatcher(Inner inner) : inner_(std::move(inner)) {}

  template <typename StatusOr>
  operator testing::Matcher<StatusOr>() const {  // NOLINT(google-explicit-constructor)
    return testing::Matcher<StatusOr>(new Impl<StatusOr>(inner_));
  }

 private:
  template <typename StatusOr>
  class Impl : public testing::MatcherInterface<StatusOr> {
   public:
    using Value = typename std::decay_t<StatusOr>::value_type;

    explicit Impl(const Inner& inner) : inner_(testing::SafeMatcherCast<const Value&>(inner)) {}

    void DescribeTo(std::ostream* os) const override {
      *os << "is OK and holds a value that ";
      inner_.DescribeTo(os);
    }
    void DescribeNegationTo(std::ostream* os) const override {
      *os << "is an error or holds a value that ";
      inner_.DescribeNegationTo(os);
    }
    bool MatchAndExplain(StatusOr actual, testing::MatchResultListener* listener) const override {
      if (!actual.ok()) {
        *listener << "which is " << actual.status();
        return false;
      }
      return inner_.MatchAndExplain(*actual, listener);
    }

   private:
    const testing::Matcher<const Value&> inner_;
  };

  const Inner inner_;
};

}  // namespace internal

// Matches a Status or StatusOr that is OK.
MATCHER(IsOk, negation ? "is an error" : "is OK") {
  const absl::Status& status = internal::GetStatus(arg);
  if (!status.ok()) *result_listener << "which is " << status;
  return status.ok();
}

// Matches a StatusOr that is OK and holds what `inner`, a matcher or a value, matches.
template <typename Inner>
internal::IsOkAndHoldsMatcher<std::decay_t<Inner>> IsOkAndHolds(Inner&& inner) {
  return internal::IsOkAndHoldsMatcher<std::decay_t<Inner>>(std::forward<Inner>(inner));
}

// Matches a Status or StatusOr by its code and message, each a matcher or a value.
MATCHER_P2(StatusIs, code, message,
           std::string(negation ? "does not have" : "has") + " a status whose code " +
               testing::DescribeMatcher<absl::StatusCode>(code) + " and whose message " +
               testing::DescribeMatcher<std::string>(message)) {
  const absl::Status& status = internal::GetStatus(arg);
  *result_listener << "which is " << status;
  return testing::ExplainMatchResult(code, status.code(), result_listener) &&
         testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}

// The same, with any message.
template <typename Code>
auto StatusIs(Code code) {
  return StatusIs(std::move(code), testing::_);
}

}  // namespace shardstep

#define EXPECT_OK(expr) EXPECT_THAT((expr), ::shardstep::IsOk())
#define ASSERT_OK(expr) ASSERT_THAT((expr), ::shardstep::IsOk())

// Moves the value of a StatusOr into `lhs` (a declaration or an assignable expression), or fails
// the test with its status. Only for functions that return void.
#define ASSERT_OK_AND_ASSIGN(lhs, ...) \
  SHARDSTEP_INTERNAL_TEST_ASSIGN(      \
      SHARDSTEP_INTERNAL_TEST_CONCAT(shardstep_internal_status_or_, __LINE__), lhs, __VA_ARGS__)

#define SHARDSTEP_INTERNAL_TEST_CONCAT_(a, b) a##b
#define SHARDSTEP_INTERNAL_TEST_CONCAT(a, b) SHARDSTEP_INTERNAL_TEST_CONCAT_(a, b)
#define SHARDSTEP_INTERNAL_TEST_ASSIGN(status_or, lhs, ...) \
  auto status_or = (__VA_ARGS__);                           \
  ASSERT_OK(status_or);                                     \
  lhs = *std::move(status_or)

#endif  // SHARDSTEP_TESTS_STATUS_MATCHERS_H_
