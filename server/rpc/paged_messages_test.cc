#include "shardstep/server/rpc/paged_messages.h"

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {
namespace {

v1::PeerReply ReplyOf(size_t values) {
  v1::PeerReply reply;
  reply.set_number(7);
  v1::ShardSum* sum = reply.mutable_reduced()->add_sums();
  for (size_t i = 0; i < values; ++i) sum->add_hi(static_cast<double>(i) + 0.5);
  return reply;
}

TEST(PagedMessagesTest, ASmallMessageTravelsAsItIs) {
  const std::vector<v1::PeerReply> sent = ToPages(std::vector{ReplyOf(3)});
  ASSERT_EQ(sent.size(), 1);
  EXPECT_TRUE(sent[0].has_reduced());
  PagedReader<v1::PeerReply> reader;
  EXPECT_EQ(reader.Take(sent[0])->at(0).SerializeAsString(), ReplyOf(3).SerializeAsString());
}

TEST(PagedMessagesTest, LargeMessagesArriveWholeOneBehindTheOther) {
  PagedReader<v1::PeerReply> reader;
  for (const size_t values : {400'000, 2, 1'000'000}) {
    const v1::PeerReply reply = ReplyOf(values);
    std::vector<v1::PeerReply> arrived;
    for (const v1::PeerReply& page : ToPages(std::vector{reply})) {
      ASSERT_TRUE(arrived.empty());
      EXPECT_LE(page.ByteSizeLong(), kMaxPageBytes + 1024);
      auto taken = reader.Take(page);
      ASSERT_TRUE(taken.ok()) << taken.status();
      arrived = *taken;
    }
    ASSERT_EQ(arrived.size(), 1);
    EXPECT_EQ(arrived[0].SerializeAsString(), reply.SerializeAsString());
  }
}

// Everything that waits, in its order, whatever travels together.
TEST(PagedMessagesTest, WhatWaitsTravelsTogetherUpToALimit) {
  std::deque<v1::PeerReply> queue;
  std::vector<std::string> sent;
  for (const size_t values : {3, 2, 50'000, 60'000, 70'000, 400'000, 1, 5}) {
    sent.push_back(ReplyOf(values).SerializeAsString());
    for (v1::PeerReply& page : ToPages(std::vector{ReplyOf(values)}))
      queue.push_back(std::move(page));
  }
  std::vector<std::string> arrived;
  std::vector<int> groups;
  PagedReader<v1::PeerReply> reader;
  while (!queue.empty()) {
    const v1::PeerReply together = TakeTogether(&queue);
    groups.push_back(together.group_size());
    EXPECT_LE(together.ByteSizeLong(), kMaxPageBytes + 1024);
    const auto taken = reader.Take(together);
    ASSERT_TRUE(taken.ok()) << taken.status();
    for (const v1::PeerReply& reply : *taken) arrived.push_back(reply.SerializeAsString());
  }
  EXPECT_EQ(arrived, sent);
  // 70,000 doubles would have made the first group too large; pages and what is alone are no group.
  EXPECT_EQ(groups, (std::vector<int>{4, 0, 0, 0, 0, 0, 2}));
}

TEST(PagedMessagesTest, AGroupHoldsNeitherPagesNorGroups) {
  v1::PeerReply pages;
  *pages.add_group() = ToPages(std::vector{ReplyOf(400'000)})[0];
  v1::PeerReply nested;
  *nested.add_group()->add_group() = ReplyOf(1);
  PagedReader<v1::PeerReply> reader;
  EXPECT_FALSE(reader.Take(pages).ok());
  EXPECT_FALSE(reader.Take(nested).ok());
}

TEST(PagedMessagesTest, PagesThatDoNotFitTogetherAreRefused) {
  std::vector<v1::PeerReply> pages = ToPages(std::vector{ReplyOf(400'000)});
  ASSERT_GE(pages.size(), 3);
  {
    PagedReader<v1::PeerReply> reader;
    EXPECT_FALSE(reader.Take(pages[1]).ok());
  }
  {
    PagedReader<v1::PeerReply> reader;
    ASSERT_TRUE(reader.Take(pages[0]).ok());
    EXPECT_FALSE(reader.Take(pages[2]).ok());
  }
  PagedReader<v1::PeerReply> reader;
  pages[1].mutable_page()->mutable_data()->at(5) ^= 1;
  for (size_t i = 0; i + 1 < pages.size(); ++i) ASSERT_TRUE(reader.Take(pages[i]).ok());
  EXPECT_FALSE(reader.Take(pages.back()).ok());
}

}  // namespace
}  // namespace shardstep
