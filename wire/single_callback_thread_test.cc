#include "shardstep/wire/single_callback_thread.h"

#include <grpc/support/cpu.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <thread>

namespace shardstep {
namespace {

constexpr std::chrono::seconds kPatience(20);

// A call that fails at once, after which `callback` runs on one of gRPC's threads.
struct FailingCall {
  explicit FailingCall(std::function<void()> callback)
      : stub(grpc::CreateCustomChannel("", nullptr, {})) {
    stub.UnaryCall(&context, "/none", {}, &request, &response,
                   [done = done, callback = std::move(callback)](const grpc::Status& status) {
                     EXPECT_FALSE(status.ok());
                     callback();
                     done->set_value();
                   });
  }
  ~FailingCall() { done->get_future().wait(); }

  // Its setting outlives the call.
  const std::shared_ptr<std::promise<void>> done = std::make_shared<std::promise<void>>();
  grpc::GenericStub stub;
  grpc::ClientContext context;
  const grpc::Slice nothing;
  const grpc::ByteBuffer request{&nothing, 1};
  grpc::ByteBuffer response;
};

// Whether two callbacks run at the same time, if each waits for the other's begin.
void ExpectTwoAtATime() {
  std::promise<void> first;
  std::promise<void> second;
  const auto meet = [](std::promise<void>* mine, std::promise<void>* other) {
    mine->set_value();
    EXPECT_EQ(other->get_future().wait_for(kPatience), std::future_status::ready);
  };
  FailingCall one([&] { meet(&first, &second); });
  FailingCall two([&] { meet(&second, &first); });
}

TEST(SingleCallbackThreadTest, OneThreadRunsAllCallbacksOfASmallMachine) {
  const SingleCallbackThread single;
  if (gpr_cpu_num_cores() > 2) return ExpectTwoAtATime();
  std::set<std::thread::id> threads;  // without a lock, which is the point
  {
    std::deque<FailingCall> calls;
    for (int i = 0; i < 500; ++i) {
      calls.emplace_back([&threads] { threads.insert(std::this_thread::get_id()); });
    }
  }
  EXPECT_EQ(threads.size(), 1u);
}

TEST(SingleCallbackThreadTest, GivesTheOtherThreadBack) {
  // A channel keeps gRPC's threads.
  const grpc::GenericStub held(grpc::CreateCustomChannel("", nullptr, {}));
  { const SingleCallbackThread single; }
  ExpectTwoAtATime();
}

}  // namespace
}  // namespace shardstep
