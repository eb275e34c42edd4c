#include "shardstep/server/committed_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace shardstep {
namespace {

v1::Contribution CallOf(int trainer_rank, uint64_t session, uint64_t call) {
  v1::Contribution contribution;
  contribution.set_trainer_rank(trainer_rank);
  contribution.mutable_pushes()->set_session(session);
  contribution.set_call(call);
  contribution.set_call_fingerprint("print");
  contribution.set_trainer_state("state");
  return contribution;
}

v1::StepReply::Committed ReplyOf(uint64_t version) {
  v1::StepReply::Committed reply;
  reply.set_version(version);
  return reply;
}

TEST(CommittedCallsTest, RepliesAreForgottenBelowTheWatermarkAndBounded) {
  CommittedCalls calls;
  for (uint64_t call = 1; call <= 200; ++call) calls.Note(CallOf(0, 5, call), ReplyOf(call));
  EXPECT_EQ(calls.Find(5, 136), nullptr);
  ASSERT_NE(calls.Find(5, 137), nullptr);
  EXPECT_EQ(calls.Find(5, 137)->reply.version(), 137u);
  EXPECT_EQ(calls.Find(5, 137)->fingerprint, "print");
  calls.Forget(5, 199);
  EXPECT_EQ(calls.Find(5, 198), nullptr);
  ASSERT_NE(calls.Find(5, 199), nullptr);
  // Nobody gets another session's reply.
  EXPECT_EQ(calls.Find(6, 199), nullptr);
}

TEST(CommittedCallsTest, ANewSessionsCommitReplacesTheOldOnesReplies) {
  CommittedCalls calls;
  calls.Note(CallOf(0, 5, 1), ReplyOf(1));
  calls.Note(CallOf(0, 6, 1), ReplyOf(2));
  EXPECT_EQ(calls.Find(5, 1), nullptr);
  EXPECT_EQ(calls.last(0).session, 6u);
  EXPECT_EQ(calls.last(0).version, 2u);
}

TEST(CommittedCallsTest, ComesBackWhole) {
  CommittedCalls calls;
  calls.Note(CallOf(0, 5, 9), ReplyOf(41));
  calls.Note(CallOf(3, 8, 2), ReplyOf(42));
  v1::CoordinatorMemory memory;
  calls.AddTo(&memory);
  CommittedCalls again = CommittedCalls::Of(memory);
  ASSERT_NE(again.Find(5, 9), nullptr);
  EXPECT_EQ(again.Find(5, 9)->reply.version(), 41u);
  EXPECT_EQ(again.last(3).call, 2u);
  EXPECT_EQ(again.last(3).trainer_state, "state");
  EXPECT_EQ(again.TrainerStates().size(), 2u);
}

TEST(CommittedCallsTest, ALoadReplacesStatesAndARestoreLastCommits) {
  CommittedCalls calls;
  calls.Note(CallOf(0, 5, 9), ReplyOf(41));
  v1::TrainerState loaded;
  loaded.set_trainer_rank(0);
  loaded.set_state("loaded");
  loaded.set_last_version(7);
  calls.LoadTrainerStates({loaded});
  EXPECT_EQ(calls.last(0).trainer_state, "loaded");
  EXPECT_EQ(calls.last(0).version, 41u);
  calls.RestoreLast({loaded});
  EXPECT_EQ(calls.last(0).version, 7u);
  // What was answered once is answered the same.
  EXPECT_NE(calls.Find(5, 9), nullptr);
}

}  // namespace
}  // namespace shardstep
