#include "shardstep/wire/pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/common.pb.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

using testing::HasSubstr;

std::string Text(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + (i >> 12));
  return text;
}

v1::Page MakePage(uint32_t index, uint32_t count, const std::string& data,
                  const std::string& digest) {
  v1::Page page;
  page.set_digest(digest);
  page.set_index(index);
  page.set_count(count);
  page.set_data(data);
  return page;
}

TEST(PagesTest, Digest) { EXPECT_EQ(PageDigest("123456789"), "e3069283-9"); }

TEST(PagesTest, CutAndCollect) {
  for (size_t size : {size_t{0}, size_t{1}, kMaxPageBytes, kMaxPageBytes + 1, 3 * kMaxPageBytes}) {
    const PagedMessage message(Text(size));
    EXPECT_EQ(message.count(), size == 0 ? 1 : (size + kMaxPageBytes - 1) / kMaxPageBytes);
    PageCollector collector;
    while (!collector.complete()) {
      ASSERT_OK_AND_ASSIGN(const v1::Page page, message.page(collector.next()));
      EXPECT_LE(page.data().size(), kMaxPageBytes);
      ASSERT_OK(collector.Add(page));
    }
    EXPECT_THAT(collector.Take(), IsOkAndHolds(Text(size)));
    EXPECT_FALSE(collector.complete());
  }
}

TEST(PagesTest, NoSuchPage) {
  EXPECT_THAT(PagedMessage("x").page(1),
              StatusIs(absl::StatusCode::kInvalidArgument, "page 1, the message has 1 pages"));
}

TEST(PageCollectorTest, IgnoresPagesThatRepeatOrComeEarly) {
  const PagedMessage message(Text(3 * kMaxPageBytes));
  PageCollector collector;
  for (uint32_t index : {2, 0, 0, 2, 1, 0, 2}) ASSERT_OK(collector.Add(*message.page(index)));
  EXPECT_EQ(collector.digest(), message.digest());
  EXPECT_THAT(collector.Take(), IsOkAndHolds(message.serialized()));
}

TEST(PageCollectorTest, RefusesImpossiblePages) {
  const std::string digest = PageDigest("ab");
  const struct {
    v1::Page page;
    const char* what;
  } cases[] = {
      {MakePage(0, 0, "ab", digest), "0 pages, expected 1 to 4096"},
      {MakePage(0, 4097, "ab", digest), "4097 pages, expected 1 to 4096"},
      {MakePage(0, 0xFFFFFFFF, "ab", digest), "4294967295 pages"},
      {MakePage(2, 2, "ab", digest), "there are 2 pages"},
      {MakePage(0, 1, std::string(kMaxPageBytes + 1, 'x'), "00000000-1048577"), "1048577 bytes"},
      {MakePage(0, 1, "ab", "x"), "is not a checksum and a length"},
      {MakePage(0, 1, "ab", "e3069283-"), "is not a checksum and a length"},
      {MakePage(0, 1, "ab", "e3069283--1"), "is not a checksum and a length"},
      {MakePage(0, 1, "ab", "e3069283-99999999999999999999999"), "is not a checksum and a length"},
      {MakePage(0, 1, "ab", "e3069283-18446744073709551615"), "expected at most 268435456"},
      {MakePage(0, 1, "abc", digest), "reaches beyond the 2 bytes"},
  };
  for (const auto& c : cases) {
    PageCollector collector;
    EXPECT_THAT(collector.Add(c.page),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.what)));
    EXPECT_EQ(collector.next(), 0u);
    EXPECT_THAT(collector.Take(), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(PageCollectorTest, RefusesPagesOfAnotherMessage) {
  PageCollector collector;
  ASSERT_OK(collector.Add(MakePage(0, 2, "a", PageDigest("ab"))));
  EXPECT_THAT(collector.Add(MakePage(1, 2, "b", PageDigest("ax"))),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(collector.Add(MakePage(1, 3, "b", PageDigest("ab"))),
              StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_OK(collector.Add(MakePage(1, 2, "b", PageDigest("ab"))));
  EXPECT_THAT(collector.Take(), IsOkAndHolds("ab"));
}

TEST(PageCollectorTest, RefusesBytesThatAreNotTheDigests) {
  PageCollector collector;
  ASSERT_OK(collector.Add(MakePage(0, 1, "xy", PageDigest("ab"))));
  EXPECT_THAT(collector.Take(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("their bytes are those of")));
  // It starts afresh.
  ASSERT_OK(collector.Add(MakePage(0, 1, "ab", PageDigest("ab"))));
  EXPECT_THAT(collector.Take(), IsOkAndHolds("ab"));
}

TEST(PageCollectorTest, TakesNoMoreThanItsBound) {
  PageCollector collector(/*max_bytes=*/1);
  EXPECT_THAT(collector.Add(MakePage(0, 1, "ab", PageDigest("ab"))),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("message of 2 bytes, expected at most 1")));
  EXPECT_OK(collector.Add(MakePage(0, 1, "a", PageDigest("a"))));
}

}  // namespace
}  // namespace shardstep
