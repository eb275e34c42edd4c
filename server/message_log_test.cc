#include "shardstep/server/message_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "shardstep/v1/peer.pb.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class OutboxTest : public ::testing::Test {
 protected:
  void Add(int messages) {
    for (int i = 0; i < messages; ++i) outbox_.Add(v1::PeerMessage());
  }
  std::vector<uint64_t> Take() {
    std::vector<uint64_t> numbers;
    for (const v1::PeerMessage& message : outbox_.TakeUnsent()) numbers.push_back(message.number());
    return numbers;
  }

  Outbox<v1::PeerMessage> outbox_;
};

TEST_F(OutboxTest, GivesEachMessageOnce) {
  Add(2);
  EXPECT_THAT(Take(), ElementsAre(1, 2));
  EXPECT_THAT(Take(), IsEmpty());
  Add(1);
  EXPECT_THAT(Take(), ElementsAre(3));
}

TEST_F(OutboxTest, ANewStreamGetsWhatTheOtherSideLacks) {
  Add(3);
  EXPECT_THAT(Take(), ElementsAre(1, 2, 3));
  Add(1);
  outbox_.Received(2);
  outbox_.Rewind();
  EXPECT_THAT(Take(), ElementsAre(3, 4));
}

TEST_F(OutboxTest, WhatWasReceivedIsNotCountedAsUnsent) {
  Add(3);
  EXPECT_THAT(Take(), ElementsAre(1, 2, 3));
  Add(2);
  outbox_.Received(1);
  EXPECT_THAT(Take(), ElementsAre(4, 5));
  outbox_.Received(5);
  Add(1);
  EXPECT_THAT(Take(), ElementsAre(6));
}

TEST_F(OutboxTest, WhatAnEarlierStreamBroughtNeedNotBeSentOnThisOne) {
  Add(4);
  EXPECT_THAT(Take(), ElementsAre(1, 2, 3, 4));
  outbox_.Rewind();
  outbox_.Received(3);
  EXPECT_THAT(Take(), ElementsAre(4));
}

TEST(InboxTest, TakesTheNextNumberOnly) {
  Inbox inbox;
  EXPECT_FALSE(inbox.Accept(2));
  EXPECT_TRUE(inbox.Accept(1));
  EXPECT_FALSE(inbox.Accept(1));
  EXPECT_TRUE(inbox.Accept(2));
  EXPECT_EQ(inbox.last(), 2u);
}

}  // namespace
}  // namespace shardstep
