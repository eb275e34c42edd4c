#include "shardstep/server/sessions.h"

#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

class SessionTableTest : public ::testing::Test {
 protected:
  uint64_t Open(int rank, const std::string& instance) {
    auto session = table_.Open(rank, instance, {}, &replaced_);
    return session.ok() ? (*session)->number : 0;
  }

  FakeClock clock_;
  SessionTable table_{&clock_, absl::Seconds(30), 100};
  uint64_t replaced_ = 0;
};

TEST_F(SessionTableTest, SameInstanceKeepsItsSessionAndAnotherGetsAHigherNumber) {
  const uint64_t first = Open(0, "a");
  EXPECT_EQ(first, 101u);
  EXPECT_EQ(Open(0, "a"), first);
  EXPECT_EQ(replaced_, 0u);
  const uint64_t second = Open(0, "b");
  EXPECT_GT(second, first);
  EXPECT_EQ(replaced_, first);
  EXPECT_EQ(table_.Find(first), nullptr);
  EXPECT_NE(table_.Find(second), nullptr);
  EXPECT_NE(Open(1, "b"), second);
}

TEST_F(SessionTableTest, RefusesWhatIsNoTrainerOrInstance) {
  EXPECT_EQ(Open(-1, "a"), 0u);
  EXPECT_EQ(Open(kMaxTrainerRanks, "a"), 0u);
  EXPECT_EQ(Open(0, ""), 0u);
  EXPECT_EQ(Open(0, std::string(65, 'x')), 0u);
  EXPECT_TRUE(table_.live().empty());
}

TEST_F(SessionTableTest, LeaseLapsesAndIsRenewed) {
  Session* session = table_.Find(Open(0, "a"));
  for (int i = 0; i < 29; ++i) {
    clock_.Advance(absl::Seconds(1));
    table_.Tick();
  }
  EXPECT_FALSE(table_.Lapsed(*session));
  clock_.Advance(absl::Seconds(1));
  table_.Tick();
  EXPECT_TRUE(table_.Lapsed(*session));
  table_.Renew(session);
  EXPECT_FALSE(table_.Lapsed(*session));
}

TEST_F(SessionTableTest, GapInTheTicksGivesEverybodyTheirTimeAgain) {
  Session* session = table_.Find(Open(0, "a"));
  table_.Tick();
  clock_.Advance(absl::Seconds(31));
  table_.Tick();
  EXPECT_FALSE(table_.Lapsed(*session));
}

TEST_F(SessionTableTest, RecoversWhatWasAnnounced) {
  v1::AnnounceSessions::Session live;
  live.set_trainer_rank(0);
  live.set_session(7);
  live.set_instance("a");
  v1::AnnounceSessions::Session closed;
  closed.set_trainer_rank(1);
  closed.set_session(900);
  closed.set_closed(true);
  table_.Recover({live, closed});
  ASSERT_NE(table_.Find(7), nullptr);
  EXPECT_FALSE(table_.Lapsed(*table_.Find(7)));
  EXPECT_EQ(table_.Find(900), nullptr);
  // The same instance is the same session; a new one gets a number that never was.
  EXPECT_EQ(Open(0, "a"), 7u);
  EXPECT_GT(Open(0, "b"), 900u);
}

}  // namespace
}  // namespace shardstep
