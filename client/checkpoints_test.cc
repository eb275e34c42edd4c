#include "shardstep/client/checkpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shardstep/client/client.h"
#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::NiceMock;
using ::testing::SizeIs;

class CheckpointsTest : public testing::Test {
 protected:
  CheckpointsTest() {
    auto connection = std::make_unique<NiceMock<internal::MockConnection>>(nullptr, 1);
    connection_ = connection.get();
    client_.emplace(internal::MakeCore(std::move(connection), &timer_));
  }

  Progress Record() {
    return [this](uint64_t done, uint64_t total) { progress_.emplace_back(done, total); };
  }

  internal::FakeTimer timer_;
  NiceMock<internal::MockConnection>* connection_ = nullptr;
  std::optional<Client> client_;
  std::vector<std::pair<uint64_t, uint64_t>> progress_;
};

TEST_F(CheckpointsTest, ACheckpointIsAskedForUnderOneRequestIdUntilItIsDone) {
  v1::CheckpointReply pending;
  pending.mutable_pending()->set_bytes_done(3);
  pending.mutable_pending()->set_bytes_total(9);
  v1::CheckpointReply done;
  done.mutable_done()->set_checkpoint_id("1-12");
  done.mutable_done()->set_version(12);
  done.mutable_done()->set_bytes(9);
  std::vector<v1::CheckpointRequest> requests;
  ON_CALL(*connection_, Checkpoint).WillByDefault([&](const auto& request, absl::Time) {
    requests.push_back(request);
    return requests.size() < 3 ? pending : done;
  });
  CheckpointOptions options;
  options.progress = Record();
  ASSERT_OK_AND_ASSIGN(const CheckpointSummary made, client_->Checkpoint("digits", options));
  EXPECT_EQ(made.id, "1-12");
  EXPECT_EQ(made.version, 12u);
  EXPECT_EQ(made.bytes, 9u);
  EXPECT_THAT(progress_, SizeIs(2));
  ASSERT_THAT(requests, SizeIs(3));
  EXPECT_EQ(requests[0].header().request_id().size(), 32u);
  EXPECT_EQ(requests[2].SerializeAsString(), requests[0].SerializeAsString());
  requests.clear();
  ASSERT_OK(client_->Checkpoint("digits", options));
  EXPECT_NE(requests[0].header().request_id(), "");

  ON_CALL(*connection_, Checkpoint).WillByDefault(testing::Return(pending));
  options.timeout = absl::Minutes(1);
  EXPECT_THAT(client_->Checkpoint("digits", options),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       "checkpoint of \"digits\": waited 60.0 s, 3 of 9 bytes are written"));
}

TEST_F(CheckpointsTest, EveryFileOfACheckpointIsVerified) {
  ON_CALL(*connection_, VerifyCheckpoint).WillByDefault([](const auto& request, absl::Time) {
    EXPECT_EQ(request.checkpoint_id(), "1-12");
    v1::VerifyCheckpointReply reply;
    if (request.file() == 1) reply.add_problems("shard-00002: chunk 3");
    reply.set_files(3);
    reply.set_bytes(10);
    reply.set_total_bytes(30);
    return reply;
  });
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> problems,
                       client_->VerifyCheckpoint("digits", "1-12", Record()));
  EXPECT_THAT(problems, ElementsAre("shard-00002: chunk 3"));
  EXPECT_THAT(progress_, SizeIs(3));
  EXPECT_EQ(progress_.back(), std::make_pair(uint64_t{30}, uint64_t{30}));

  v1::VerifyCheckpointReply broken;
  broken.add_problems("manifest.json: its checksum differs");
  EXPECT_CALL(*connection_, VerifyCheckpoint(_, _)).WillOnce(testing::Return(broken));
  EXPECT_THAT(client_->VerifyCheckpoint("digits", "1-12").value(), SizeIs(1));
}

TEST_F(CheckpointsTest, ARestoreIsProposedUnderOneRequestIdUntilItIsDone) {
  std::vector<v1::ProposeRequest> requests;
  ON_CALL(*connection_, Propose).WillByDefault([&](const auto& request, absl::Time) {
    requests.push_back(request);
    v1::ProposeReply reply;
    if (requests.size() == 1) {
      reply.mutable_pending()->set_bytes_done(4);
      reply.mutable_pending()->set_bytes_total(8);
      return reply;
    }
    reply.mutable_done()->set_version(12);
    reply.mutable_done()->set_lineage(2);
    reply.mutable_done()->add_placed_anew("table");
    return reply;
  });
  RestoreOptions options;
  options.progress = Record();
  ASSERT_OK_AND_ASSIGN(const RestoreResult restored, client_->Restore("digits", "1-12", options));
  EXPECT_EQ(restored.version, 12u);
  EXPECT_EQ(restored.lineage, 2u);
  EXPECT_THAT(restored.placed_anew, ElementsAre("table"));
  EXPECT_THAT(progress_, ElementsAre(std::make_pair(uint64_t{4}, uint64_t{8})));
  ASSERT_THAT(requests, SizeIs(2));
  EXPECT_EQ(requests[0].restore().checkpoint_id(), "1-12");
  EXPECT_EQ(requests[1].SerializeAsString(), requests[0].SerializeAsString());
}

TEST_F(CheckpointsTest, AListTellsWhatCannotBeRead) {
  v1::ListCheckpointsReply reply;
  v1::ListCheckpointsReply::Checkpoint& one = *reply.add_checkpoints();
  one.set_checkpoint_id("1-12");
  one.set_version(12);
  one.set_automatic(true);
  reply.add_checkpoints()->set_problem("no manifest");
  EXPECT_CALL(*connection_, ListCheckpoints(_, _)).WillOnce(testing::Return(reply));
  ASSERT_OK_AND_ASSIGN(const std::vector<CheckpointSummary> listed,
                       client_->ListCheckpoints("digits"));
  ASSERT_THAT(listed, SizeIs(2));
  EXPECT_EQ(listed[0].id, "1-12");
  EXPECT_TRUE(listed[0].automatic);
  EXPECT_EQ(listed[1].problem, "no manifest");
}

}  // namespace
}  // namespace shardstep
