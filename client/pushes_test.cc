#include "shardstep/client/pushes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep::internal {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int64_t kRows = 4;
constexpr int64_t kColumns = 1 << 16;

// "table" and "bias", on one server.
class PushesTest : public testing::Test {
 protected:
  PushesTest()
      : index_(std::make_shared<const OptimizerIndex>(
            Describe({{"table", DType::kFloat32, {kRows, kColumns}, Whole{0}},
                      {"bias", DType::kFloat32, {2}, Whole{0}}},
                     1))) {
    auto connection = std::make_unique<testing::NiceMock<MockConnection>>(index_, 1);
    server_ = connection->servers[0].get();
    pushes_ = std::make_unique<Pushes>(MakeCore(std::move(connection), &timer_), v1::CallHeader(),
                                       index_, DeclaredRegions(2));
  }

  static v1::Begin MakeBegin() {
    v1::Begin begin;
    begin.set_weight(1.0);
    return begin;
  }
  absl::Status AddBias(Pushes::PushId push) {
    return pushes_->Add(push, "bias", {MakeTensorView(bias_, {2})}, nullptr);
  }

  FakeTimer timer_;
  const std::shared_ptr<const OptimizerIndex> index_;
  FakeServer* server_ = nullptr;
  std::unique_ptr<Pushes> pushes_;
  float bias_[2] = {1, 2};
};

TEST_F(PushesTest, AnAbandonedPushIsNotItsSuccessorThoughThatHasItsSequence) {
  ASSERT_OK_AND_ASSIGN(const Pushes::PushId abandoned, pushes_->Begin(MakeBegin()));
  pushes_->Abandon(abandoned);
  ASSERT_OK_AND_ASSIGN(const Pushes::PushId push, pushes_->Begin(MakeBegin()));
  ASSERT_EQ(push.sequence, abandoned.sequence);
  EXPECT_THAT(AddBias(abandoned),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is not open")));
  EXPECT_THAT(pushes_->Finish(abandoned), StatusIs(absl::StatusCode::kFailedPrecondition));
  pushes_->Abandon(abandoned);
  EXPECT_OK(AddBias(push));
  EXPECT_OK(pushes_->Finish(push));
  EXPECT_THAT(server_->received, SizeIs(1));
}

// Another thread's next push would overtake it.
TEST_F(PushesTest, APushIsOpenUntilItsEndIsOnItsWay) {
  ASSERT_OK_AND_ASSIGN(const Pushes::PushId push, pushes_->Begin(MakeBegin()));
  ASSERT_OK(AddBias(push));
  bool open = false;
  server_->on_end = [&] { open = pushes_->open().has_value(); };
  ASSERT_OK(pushes_->Finish(push));
  EXPECT_TRUE(open);
  EXPECT_FALSE(pushes_->open().has_value());
  EXPECT_THAT(server_->received, SizeIs(1));
}

// The other thread sums rows, which takes it a while, when the push is abandoned.
TEST_F(PushesTest, WhatIsBeingAddedIsAbandonedTooAndReadNoMore) {
  constexpr int64_t kGiven = 100;
  const std::vector<int64_t> rows(kGiven, 1);
  std::vector<float> values(kGiven * kColumns, 1.0f);
  const RowGradient gradient{absl::MakeConstSpan(rows),
                             MakeTensorView(std::as_const(values).data(), {kGiven, kColumns})};
  ASSERT_OK_AND_ASSIGN(const Pushes::PushId abandoned, pushes_->Begin(MakeBegin()));
  std::atomic<bool> adds = false;
  std::thread filler([&] {
    adds = true;
    (void)pushes_->AddRows(abandoned, "table", gradient, nullptr);
  });
  while (!adds) std::this_thread::yield();
  // Takes as long as a small part of the sum, so that it has begun and is not over.
  EXPECT_GT(std::accumulate(values.begin(), values.begin() + kRows * kColumns, 0.0f), 0.0f);
  pushes_->Abandon(abandoned);
  std::vector<float>().swap(values);
  const absl::StatusOr<Pushes::PushId> push = pushes_->Begin(MakeBegin());
  filler.join();
  ASSERT_OK(push.status());
  EXPECT_OK(AddBias(*push));
  EXPECT_OK(pushes_->Finish(*push));
  ASSERT_THAT(server_->received, SizeIs(1));
  EXPECT_EQ(server_->received[0].end.touched(), "\x02");
  EXPECT_EQ(server_->received[0].begin.header().sequence(), 1u);
}

}  // namespace
}  // namespace shardstep::internal
