// Servers and trainers that come, go and die, in real processes. With --trainer=<fleet file> this
// program is trainer rank 1 of 2 itself, to be killed by the test.

#include <cstdio>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/child_process.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/raw_trainer.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"
#include "shardstep/wire/fleet_file.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr absl::Duration kLease = absl::Seconds(2);
// Within a lease of it, and some seconds of a busy machine.
constexpr absl::Duration kPatience = absl::Seconds(60);

Floats MakeValues(float value = 0) {
  return std::move(Floats().Add("a", {7}, value, Rows(3)).Add("b", {5}, value, Whole{1}));
}

absl::StatusOr<ShardedOptimizer> Create(const std::string& fleet_file, int trainer_rank,
                                        int trainers = 2) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_file));
  const Floats values = MakeValues();
  return client.CreateOptimizer("m", values.named(), SGDOptions(1.0).momentum(0.5),
                                Synchronous(trainers), trainer_rank);
}

// Steps with the gradient that trainer rank 1 has at every version, again and again.
absl::Status RunTrainer(const std::string& fleet_file) {
  SHARDSTEP_ASSIGN_OR_RETURN(ShardedOptimizer optimizer, Create(fleet_file, 1));
  while (true) {
    const Floats gradients = MakeValues(3 + optimizer.version());
    SHARDSTEP_RETURN_IF_ERROR(PushAndStep(optimizer, gradients).status());
  }
}

class LifecycleTest : public testing::Test {
 protected:
  void MakeFleet(absl::Duration lease = kLease) {
    MiniFleetOptions options;
    options.lease = lease;
    fleet_ = MakeProcessFleet(options);
  }
  void StartFleet(absl::Duration lease = kLease) {
    MakeFleet(lease);
    ASSERT_OK(fleet_->Start());
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    client_ = std::make_unique<Client>(std::move(client));
  }

  absl::StatusOr<std::unique_ptr<ChildProcess>> StartTrainer() const {
    return ChildProcess::Start({"/proc/self/exe", absl::StrCat("--trainer=", fleet_->fleet_file())},
                               fleet_->directory() + "/trainer-log");
  }

  bool InStep(int trainer_rank) const {
    const auto sessions = client_->ListSessions("m");
    return sessions.ok() && static_cast<int>(sessions->size()) > trainer_rank &&
           (*sessions)[trainer_rank].in_step;
  }

  void ExpectValues(float value) const {
    ASSERT_OK_AND_ASSIGN(OptimizerReader reader, client_->OpenReader("m"));
    Floats values = MakeValues();
    ASSERT_OK(reader.Pull(values.named()));
    EXPECT_THAT(values["a"], Each(value));
    EXPECT_THAT(values["b"], Each(value));
  }

  std::unique_ptr<MiniFleet> fleet_;
  std::unique_ptr<Client> client_;
};

TEST_F(LifecycleTest, ServersAndClientsStartInAnyOrder) {
  MakeFleet();
  // A client's first attempt may precede everything; it says what is missing.
  EXPECT_THAT(Client::Connect(fleet_->fleet_file()), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(fleet_->StartServer(2));
  ASSERT_OK(fleet_->WriteFleetFile());  // the others are not there yet
  auto trained = std::async(std::launch::async, [this]() -> absl::Status {
    SHARDSTEP_ASSIGN_OR_RETURN(ShardedOptimizer optimizer, Create(fleet_->fleet_file(), 0, 1));
    const Floats ones = MakeValues(1);
    return PushAndStep(optimizer, ones).status();
  });
  ASSERT_OK(fleet_->StartServer(0));
  ASSERT_OK(fleet_->StartServer(1));
  ASSERT_OK(fleet_->WriteFleetFile());  // whoever cannot reach an address reads it again
  ASSERT_OK(trained.get());
}

TEST_F(LifecycleTest, TrainerKilledInABarrierIsReplacedWithoutLossOrDoubling) {
  StartFleet();
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(fleet_->fleet_file(), 0));
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<ChildProcess> doomed, StartTrainer());
  const Floats ones = MakeValues(1);
  ASSERT_OK_AND_ASSIGN(StepResult step, PushAndStep(optimizer, ones));
  EXPECT_EQ(step.version, 1u);
  // It pushed for the second step and waits for us.
  ASSERT_TRUE(Eventually([&] { return InStep(1); }, kPatience)) << doomed->LogTail();
  doomed->Kill();
  ASSERT_OK(Push(optimizer, ones));
  // Until its lease ends its call stands: the step may be made. Let the lease end first.
  ASSERT_TRUE(Eventually(
      [&] {
        const auto sessions = client_->ListSessions("m");
        return sessions.ok() && (*sessions)[1].lapsed;
      },
      kPatience));
  const absl::Status late = optimizer.Step(WithTimeout(absl::Seconds(1))).status();
  EXPECT_THAT(
      late, StatusIs(absl::StatusCode::kDeadlineExceeded,
                     AllOf(HasSubstr("step 2 of \"m\": waited 1."), HasSubstr("trainer rank 1"))));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ChildProcess> replacement, StartTrainer());
  ASSERT_OK_AND_ASSIGN(step, optimizer.Step());
  EXPECT_EQ(step.version, 2u);
  ASSERT_OK_AND_ASSIGN(step, PushAndStep(optimizer, ones));
  EXPECT_EQ(step.version, 3u);
  // As an undisturbed run: means 2, 2.5, 3 with momentum 0.5.
  float value = 0, buffer = 0;
  for (const float mean : {2.0f, 2.5f, 3.0f}) value -= buffer = 0.5f * buffer + mean;
  ExpectValues(value);
}

TEST_F(LifecycleTest, CallsGetParticipantLostWhileALeaseIsLapsed) {
  StartFleet(absl::Milliseconds(500));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(fleet_->fleet_file(), 0));
  RawTrainer silent(*fleet_, "m", 1, "silent");
  ASSERT_OK(silent.Open());
  ASSERT_OK(silent.Push(1, {{"a", 100}, {"b", 100}}));
  RawTrainer waiting(*fleet_, "m", 0, "waiting");  // replaces the SDK's own
  ASSERT_OK(waiting.Open());
  ASSERT_OK(waiting.Push(1, {{"a", 1}, {"b", 1}}));
  const absl::Status lost = waiting.Step(waiting.MakeStep(1, 1, 1)).status();
  EXPECT_THAT(lost, StatusIs(absl::StatusCode::kAborted, HasSubstr("trainer rank 1")));
  EXPECT_EQ(ReasonOf(lost), v1::PARTICIPANT_LOST);
  EXPECT_EQ(ErrorDetailOf(lost)->trainer_ranks_size(), 1);
  // At once, as long as it lasts.
  const absl::Time called = absl::Now();
  EXPECT_EQ(ReasonOf(waiting.Step(waiting.MakeStep(1, 1, 1)).status()), v1::PARTICIPANT_LOST);
  EXPECT_LT(absl::Now() - called, absl::Seconds(10));
  ExpectValues(0);
  RawTrainer replacement(*fleet_, "m", 1, "replacement");
  ASSERT_OK(replacement.Open());
  ASSERT_OK(replacement.Push(1, {{"a", 3}, {"b", 3}}));
  // Whichever comes first may find the other one's lease lapsed by now.
  const auto step = [](RawTrainer* trainer) {
    absl::Status status;
    Eventually([&] {
      status = trainer->Step(trainer->MakeStep(1, 1, 1)).status();
      return ReasonOf(status) != v1::PARTICIPANT_LOST;
    });
    return status;
  };
  auto other = std::async(std::launch::async, step, &replacement);
  EXPECT_OK(step(&waiting));
  EXPECT_OK(other.get());
  ExpectValues(-2);  // nothing of the silent one's push
}

TEST_F(LifecycleTest, SigtermDrainsWhileAStepWaits) {
  StartFleet(kDefaultLease);
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(fleet_->fleet_file(), 0));
  const Floats ones = MakeValues(1);
  ASSERT_OK(Push(optimizer, ones));
  auto waiting = StepAsync(optimizer, WithTimeout(absl::Seconds(6)));
  ASSERT_TRUE(Eventually([&] { return InStep(0); }, kPatience));
  for (const int server : {0, 1, 2}) {
    ASSERT_OK_AND_ASSIGN(const int code, fleet_->Terminate(server, absl::Seconds(10)));
    EXPECT_EQ(code, 0) << fleet_->LogTail(server);
  }
  const absl::Status ended = waiting.get().status();
  EXPECT_THAT(ended.code(),
              testing::AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded))
      << ended;
  EXPECT_THAT(std::string(ended.message()), HasSubstr("step 1 of \"m\""));
}

// Its steps commit when nobody is there to be told.
TEST_F(LifecycleTest, AFullStreamOfStepsThatIsCutOffHoldsNothingUp) {
  StartFleet();
  ASSERT_OK(Create(fleet_->fleet_file(), 0).status());
  RawTrainer first(*fleet_, "m", 0, "first");
  RawTrainer second(*fleet_, "m", 1, "second");
  ASSERT_OK(first.Open());
  ASSERT_OK(second.Open());
  const auto calls = [](RawTrainer& trainer) {
    v1::StepCalls all;
    for (int i = 1; i <= kMaxOpenSteps; ++i) {
      v1::StepCalls::Call& call = *all.add_calls();
      call.set_id(i);
      *call.mutable_request() = trainer.MakeStep(i, 1, 0);
      call.set_timeout_ms(60'000);
    }
    return all;
  };
  grpc::ClientContext cut_off;
  const auto stream = first.coordinator().Steps(&cut_off);
  ASSERT_TRUE(stream->Write(calls(first)));
  v1::StepStatusRequest last;
  *last.mutable_header() = first.Header(kMaxOpenSteps);
  EXPECT_TRUE(Eventually(
      [&] {
        const auto status = Call(first.coordinator(), &v1::Coordinator::Stub::StepStatus, last);
        return status.ok() && status->state() == v1::StepStatusReply::PENDING;
      },
      kPatience));
  cut_off.TryCancel();
  EXPECT_FALSE(stream->Finish().ok());

  grpc::ClientContext context;
  const auto other = second.coordinator().Steps(&context);
  ASSERT_TRUE(other->Write(calls(second)));
  int committed = 0;
  v1::StepAnswers answers;
  while (committed < kMaxOpenSteps && other->Read(&answers)) {
    for (const auto& answer : answers.answers())
      committed += answer.reply().has_committed() ? 1 : 0;
  }
  EXPECT_EQ(committed, kMaxOpenSteps);
  ASSERT_OK_AND_ASSIGN(const int code, fleet_->Terminate(0, absl::Seconds(10)));
  EXPECT_EQ(code, 0);
}

TEST_F(LifecycleTest, SecondServerOnADataDirectoryIsRefused) {
  StartFleet();
  const std::string log = fleet_->directory() + "/second-log";
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<ChildProcess> second,
      ChildProcess::Start({RunfilePath("server/shardstep-server"), "--fleet", fleet_->fleet_file(),
                           "--rank", "1", "--data", fleet_->data_directory(1)},
                          log));
  EXPECT_EQ(second->AwaitExit(kPatience), 1);
  EXPECT_THAT(second->LogTail(),
              HasSubstr(absl::StrCat("data directory \"", fleet_->data_directory(1),
                                     "\" is in use by another server")));
  ASSERT_OK(Create(fleet_->fleet_file(), 0, 1));  // the first one works on
}

TEST_F(LifecycleTest, ClientWithAnotherFleetsFileIsRefused) {
  StartFleet();
  const std::string file = fleet_->directory() + "/other.json";
  FleetFile other;
  other.name = "other";
  for (const int server : {0, 1, 2}) other.servers.push_back(fleet_->address(server));
  ASSERT_OK(other.Write(file));
  const absl::Status refused = Client::Connect(file).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition,
                                AllOf(HasSubstr("name \"mini\", durability \"none\""),
                                      HasSubstr("name \"other\", durability \"none\""))));
  EXPECT_EQ(ReasonOf(refused), v1::FLEET_MISMATCH);
}

TEST_F(LifecycleTest, KilledServerIsKnownToHaveLostItsShards) {
  for (const int killed : {2, 0}) {
    SCOPED_TRACE(absl::StrCat("server ", killed));
    StartFleet();
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(fleet_->fleet_file(), 0, 1));
    const Floats ones = MakeValues(1);
    for (int step = 0; step < 3; ++step) ASSERT_OK(PushAndStep(optimizer, ones));
    ASSERT_OK(fleet_->Restart(killed));
    const absl::Status lost = PushAndStep(optimizer, ones).status();
    EXPECT_THAT(
        lost,
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 HasSubstr(absl::StrCat("server ", killed, " restarted and lost its shards"))));
    EXPECT_EQ(ReasonOf(lost), v1::SHARDS_LOST);
    EXPECT_EQ(ReasonOf(Create(fleet_->fleet_file(), 0, 1).status()), v1::SHARDS_LOST);
    ASSERT_OK(client_->DeleteOptimizer("m"));
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer again, Create(fleet_->fleet_file(), 0, 1));
    EXPECT_EQ(again.version(), 0u);
    ASSERT_OK(PushAndStep(again, ones));
    ExpectValues(-1);
  }
}

TEST_F(LifecycleTest, PausedServerDelaysAStepAndLosesNothing) {
  StartFleet();
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(fleet_->fleet_file(), 0, 1));
  ASSERT_OK(fleet_->Pause(1));
  const Floats ones = MakeValues(1);
  ASSERT_OK(Push(optimizer, ones));
  EXPECT_THAT(
      optimizer.Step(WithTimeout(absl::Seconds(1))),
      StatusIs(testing::AnyOf(absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kUnavailable),
               HasSubstr("server 1")));
  ASSERT_OK(fleet_->Resume(1));
  ASSERT_OK(optimizer.Step());
  ExpectValues(-1);
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  absl::string_view fleet_file = argc > 1 ? argv[1] : "";
  if (absl::ConsumePrefix(&fleet_file, "--trainer=")) {
    const absl::Status status = shardstep::RunTrainer(std::string(fleet_file));
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
