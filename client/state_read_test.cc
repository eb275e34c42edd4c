#include "shardstep/client/state_read.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// A parameter of four floats, two on each of two servers.
class StateReadTest : public testing::Test {
 protected:
  StateReadTest()
      : index_(std::make_shared<const OptimizerIndex>(
            Describe({{"w", DType::kFloat32, {4}, Chunk{0, {{0}, {1}}}}}, 2))),
        connection_(index_, 2) {
    snapshot_.set_snapshot(5);
    snapshot_.set_version(12);
    snapshot_.set_lineage(3);
    snapshot_.set_plan_id(index_->plan_id());
    request_.set_snapshot(5);
  }

  // The last elements of one server's shard, one in each frame.
  FakeReadServer::Script Script(uint32_t shard, const std::vector<float>& values,
                                uint64_t version = 12) {
    v1::Snapshot snapshot = snapshot_;
    snapshot.set_version(version);
    std::vector<std::pair<v1::Slice, std::string>> slices;
    for (size_t i = 0; i < values.size(); ++i) {
      slices.push_back(FloatSlice(shard, 2 - values.size() + i, {values[i]}));
    }
    return ReadOf(snapshot, slices);
  }

  static void Truncate(FakeReadServer::Script* script, size_t messages, absl::Status status) {
    script->headers.resize(messages);
    script->payloads.resize(messages);
    script->status = std::move(status);
  }

  absl::Status Read(absl::Duration timeout = absl::Seconds(5)) {
    BlockSink sink(index_);
    sink.Add(0, {{WholeRegion({4}), MakeTensorView(values_, {4})}});
    return ReadStateFromAll(&connection_, request_, snapshot_, &sink, FakePolicy(&timer_),
                            timer_.Now() + timeout);
  }

  FakeTimer timer_;
  std::shared_ptr<const OptimizerIndex> index_;
  testing::NiceMock<MockConnection> connection_;
  v1::Snapshot snapshot_;
  v1::ReadStateRequest request_;
  float values_[4] = {};
};

TEST_F(StateReadTest, GathersAllServersParts) {
  connection_.readers[0].scripts = {Script(0, {1, 2})};
  connection_.readers[1].scripts = {Script(1, {3, 4})};
  ASSERT_OK(Read());
  EXPECT_THAT(values_, ElementsAre(1, 2, 3, 4));
}

TEST_F(StateReadTest, GoesOnWhereABrokenReadWas) {
  FakeReadServer::Script broken = Script(0, {1, 2});
  Truncate(&broken, 2, absl::UnavailableError("Socket closed"));
  connection_.readers[0].scripts = {broken, Script(0, {2})};
  connection_.readers[1].scripts = {Script(1, {3, 4})};
  ASSERT_OK(Read());
  EXPECT_THAT(values_, ElementsAre(1, 2, 3, 4));
  ASSERT_THAT(connection_.readers[0].requests, SizeIs(2));
  EXPECT_EQ(connection_.readers[0].requests[1].skip_bytes(), 4u);
  EXPECT_THAT(connection_.readers[1].requests, SizeIs(1));
}

TEST_F(StateReadTest, ADamagedFrameIsReadAgain) {
  FakeReadServer::Script damaged = Script(0, {1, 2});
  Truncate(&damaged, 3, absl::OkStatus());
  damaged.corrupt_last = true;
  connection_.readers[0].scripts = {damaged, Script(0, {2})};
  connection_.readers[1].scripts = {Script(1, {3, 4})};
  ASSERT_OK(Read());
  EXPECT_THAT(values_, ElementsAre(1, 2, 3, 4));
}

TEST_F(StateReadTest, AnotherVersionThanTheSnapshotsIsRefused) {
  connection_.readers[0].scripts = {Script(0, {1, 2})};
  connection_.readers[1].scripts = {Script(1, {3, 4}, /*version=*/13)};
  EXPECT_THAT(Read(), StatusIs(absl::StatusCode::kInternal,
                               HasSubstr("server 1 answered with version 13 of lineage 3, expected "
                                         "version 12 of lineage 3")));
}

TEST_F(StateReadTest, AReadThatEndsWithoutItsEndIsNotComplete) {
  FakeReadServer::Script early = Script(0, {1, 2});
  Truncate(&early, 3, absl::OkStatus());
  for (int i = 0; i < 100; ++i) connection_.readers[0].scripts.push_back(early);
  connection_.readers[1].scripts = {Script(1, {3, 4})};
  EXPECT_FALSE(Read().ok());
}

TEST_F(StateReadTest, AReadThatHangsIsGivenUpInTime) {
  FakeReadServer::Script hanging = Script(0, {1, 2});
  Truncate(&hanging, 2, absl::OkStatus());
  hanging.hangs = true;
  connection_.readers[0].serve = [&](const v1::ReadStateRequest&) { return hanging; };
  connection_.readers[1].scripts = {Script(1, {3, 4})};
  EXPECT_THAT(Read(absl::Milliseconds(10)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("server 0")));
}

TEST_F(StateReadTest, FewerElementsThanAskedForAreNoticed) {
  FakeReadServer::Script half = Script(0, {2});
  connection_.readers[0].scripts = {half};
  connection_.readers[1].scripts = {Script(1, {3, 4})};
  EXPECT_THAT(Read(),
              StatusIs(absl::StatusCode::kInternal, "server 0 sent 1 of 2 elements of shard 0"));
}

TEST_F(StateReadTest, AClosedSnapshotEndsTheRead) {
  FakeReadServer::Script gone;
  gone.status = MakeError(absl::StatusCode::kAborted, "snapshot 5 was closed", v1::SNAPSHOT_GONE);
  connection_.readers[0].scripts = {gone};
  connection_.readers[1].scripts = {Script(1, {3, 4})};
  const absl::Status status = Read();
  EXPECT_EQ(ReasonOf(status), v1::SNAPSHOT_GONE);
  EXPECT_THAT(connection_.readers[0].requests, SizeIs(1));
}

}  // namespace
}  // namespace shardstep::internal
