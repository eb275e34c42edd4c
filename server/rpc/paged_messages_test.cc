#include "shardstep/server/rpc/paged_messages.h"

#include <string>
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
  const std::vector<v1::PeerReply> sent = ToPages(ReplyOf(3));
  ASSERT_EQ(sent.size(), 1);
  EXPECT_TRUE(sent[0].has_reduced());
  PagedReader<v1::PeerReply> reader;
  EXPECT_EQ((*reader.Take(sent[0]))->SerializeAsString(), ReplyOf(3).SerializeAsString());
}

TEST(PagedMessagesTest, LargeMessagesArriveWholeOneBehindTheOther) {
  PagedReader<v1::PeerReply> reader;
  for (const size_t values : {400'000, 2, 1'000'000}) {
    const v1::PeerReply reply = ReplyOf(values);
    std::optional<v1::PeerReply> arrived;
    for (const v1::PeerReply& page : ToPages(reply)) {
      ASSERT_FALSE(arrived.has_value());
      EXPECT_LE(page.ByteSizeLong(), kMaxPageBytes + 1024);
      auto taken = reader.Take(page);
      ASSERT_TRUE(taken.ok()) << taken.status();
      arrived = *taken;
    }
    ASSERT_TRUE(arrived.has_value());
    EXPECT_EQ(arrived->SerializeAsString(), reply.SerializeAsString());
  }
}

TEST(PagedMessagesTest, PagesThatDoNotFitTogetherAreRefused) {
  std::vector<v1::PeerReply> pages = ToPages(ReplyOf(400'000));
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
