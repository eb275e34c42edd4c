#include "shardstep/client/creation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::HasSubstr;
using ::testing::NiceMock;
using ::testing::SizeIs;

NamedTensor Whole8(const std::string& name, float* data) {
  NamedTensor tensor;
  tensor.name = name;
  tensor.value = MakeTensorView(data, {8});
  return tensor;
}

absl::StatusOr<Proposal> Propose(std::vector<NamedTensor> tensors, Mode mode = Synchronous(2),
                                 int trainer_rank = 0) {
  return MakeProposal("digits", {{std::move(tensors), {}}}, SGDOptions(0.1), mode, trainer_rank,
                      /*num_servers=*/2);
}

auto Refuses(const std::string& words) {
  return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(words));
}

TEST(MakeProposalTest, RefusesWhatCannotBeAnOptimizerBeforeAnyCall) {
  float a[8] = {}, b[8] = {};
  EXPECT_OK(Propose({Whole8("a", a), Whole8("b", b)}));
  EXPECT_THAT(Propose({Whole8("a", a), Whole8("a", b)}),
              Refuses("parameter \"a\": stands twice in one parameter group"));
  EXPECT_THAT(Propose({Whole8("a", a), Whole8("b", a)}), Refuses("one tensor under two names"));
  EXPECT_THAT(Propose({Whole8("a", a)}, Synchronous(2), 2),
              Refuses("trainer rank: expected 0 to 1, got 2"));
  EXPECT_THAT(Propose({Whole8("a", a)}, Synchronous(0)), Refuses("trainers"));
  EXPECT_THAT(Propose({Whole8("", a)}), Refuses("name"));
  EXPECT_THAT(MakeProposal("digits", {}, SGDOptions(0.1), Synchronous(1), 0, 2),
              Refuses("optimizer got an empty parameter list"));
  EXPECT_THAT(MakeProposal("../x", {{{Whole8("a", a)}, {}}}, SGDOptions(), Synchronous(1), 0, 2),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(
      MakeProposal("digits", {{{Whole8("a", a)}, {}}}, SGDOptions(-1.0), Synchronous(1), 0, 2),
      Refuses("Invalid learning rate: -1.0"));
}

TEST(MakeProposalTest, RefusesTensorsThatAreNone) {
  float a[8] = {};
  NamedTensor bad = Whole8("a", a);
  bad.value.dtype = DType::kInt64;
  EXPECT_THAT(Propose({bad}), Refuses("int64"));
  bad = Whole8("a", a);
  bad.value.sizes.assign(9, 1);
  EXPECT_THAT(Propose({bad}), StatusIs(absl::StatusCode::kInvalidArgument));
  bad.value.sizes = {-8};
  EXPECT_THAT(Propose({bad}), StatusIs(absl::StatusCode::kInvalidArgument));
  bad.value.sizes = {INT64_MAX, 3};
  EXPECT_THAT(Propose({bad}), StatusIs(absl::StatusCode::kInvalidArgument));
  bad = Whole8("a", nullptr);
  EXPECT_THAT(Propose({bad}), StatusIs(absl::StatusCode::kInvalidArgument));
  bad = Whole8("a", a);
  bad.spec = Whole{5};
  EXPECT_THAT(Propose({bad}), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(MakeProposalTest, LocalShardsFitTheirMetadataAndTheParameter) {
  float a[4] = {}, b[4] = {};
  NamedTensor sharded;
  sharded.name = "table";
  sharded.global_sizes = {4, 4};
  sharded.local_shards = {{{{0, 0}, {1, 4}, {}}, MakeTensorView(a, {1, 4})},
                          {{{2, 0}, {1, 4}, {}}, MakeTensorView(b, {1, 4})}};
  ASSERT_OK_AND_ASSIGN(const Proposal proposal, Propose({sharded}));
  EXPECT_TRUE(proposal.definition.sharded[0]);
  EXPECT_THAT(proposal.regions[0], SizeIs(2));
  EXPECT_EQ(proposal.definition.parameters[0].sizes, (Shape{4, 4}));

  NamedTensor bad = sharded;
  bad.local_shards[1].view.sizes = {2, 2};
  EXPECT_THAT(Propose({bad}), Refuses("expected shape [1,4], got [2,2]"));
  bad = sharded;
  bad.local_shards[1].metadata.offsets = {0, 0};
  EXPECT_THAT(Propose({bad}), Refuses("overlap"));
  bad = sharded;
  bad.local_shards[1].metadata.offsets = {4, 0};
  EXPECT_THAT(Propose({bad}), Refuses("is not inside [4,4]"));
}

// A coordinator that asks for pages, hands out a staging, and is done with the next call.
class CreateOnFleetTest : public testing::Test {
 protected:
  CreateOnFleetTest() : proposal_(Propose({Whole8("a", a_), Whole8("b", b_)}).value()) {
    description_.definition = proposal_.definition;
    description_.plan =
        MakePlan(proposal_.definition.parameters, 2, {/*whole_below_bytes=*/8}).value();
    description_.groups = proposal_.definition.groups;
    auto connection = std::make_unique<NiceMock<MockConnection>>(
        std::make_shared<const OptimizerIndex>(description_), 2);
    connection_ = connection.get();
    client_ = MakeCore(std::move(connection), &timer_);
    ON_CALL(*connection_, OpenSession).WillByDefault([this](const auto&, absl::Time) {
      v1::OpenSessionReply opened;
      opened.set_session(4);
      opened.set_lease_ms(30000);
      opened.set_lineage(lineages_.front());
      opened.set_trainer_state(absl::StrCat("of lineage ", lineages_.front()));
      if (lineages_.size() > 1) lineages_.pop_front();
      return opened;
    });
    ON_CALL(*connection_, CloseSession).WillByDefault(testing::Return(v1::CloseSessionReply()));
    ON_CALL(*connection_, Describe)
        .WillByDefault([this](const v1::DescribeRequest& request, absl::Time) {
          const PagedMessage pages(DescriptionToProto(description_).SerializeAsString());
          v1::DescribeReply reply;
          reply.set_version(request.staging() == 0 ? 3 : 0);
          reply.set_lineage(2);
          *reply.mutable_description() = pages.page(request.page()).value();
          return absl::StatusOr<v1::DescribeReply>(reply);
        });
    ON_CALL(*connection_, Propose)
        .WillByDefault([this](const v1::ProposeRequest& request, absl::Time) {
          requests_.push_back(request);
          absl::StatusOr<v1::ProposeReply> reply = replies_.front();
          replies_.pop_front();
          return reply;
        });
  }

  static v1::ProposeReply Staging(uint64_t id) {
    v1::ProposeReply reply;
    reply.mutable_staging()->set_staging(id);
    reply.mutable_staging()->set_whole_tensors(true);
    return reply;
  }
  static v1::ProposeReply Done() {
    v1::ProposeReply reply;
    reply.mutable_done();
    return reply;
  }
  static v1::ProposeReply Pending() {
    v1::ProposeReply reply;
    reply.mutable_pending()->add_staged_by(1);
    return reply;
  }

  absl::StatusOr<std::unique_ptr<OptimizerCore>> Create() {
    return CreateOnFleet(client_, proposal_, 0, timer_.Now() + absl::Minutes(1));
  }

  float a_[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  float b_[8] = {9};
  FakeTimer timer_;
  Proposal proposal_;
  OptimizerDescription description_;
  NiceMock<MockConnection>* connection_ = nullptr;
  std::shared_ptr<const ClientCore> client_;
  std::deque<uint64_t> lineages_ = {2};  // that OpenSession answers with; the last one stays
  std::deque<absl::StatusOr<v1::ProposeReply>> replies_;
  std::vector<v1::ProposeRequest> requests_;
};

TEST_F(CreateOnFleetTest, TheFirstWritesItsValuesToAllServers) {
  replies_ = {Staging(6), Pending(), Done()};
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<OptimizerCore> core, Create());
  EXPECT_EQ(core->version(), 3u);
  std::string bytes;
  for (int rank : {0, 1}) {
    ASSERT_THAT(connection_->servers[rank]->received, SizeIs(1));
    const ReceivedTensors& written = connection_->servers[rank]->received[0];
    EXPECT_EQ(written.write_begin.staging(), 6u);
    EXPECT_EQ(written.write_begin.header().session(), 4u);
    bytes += written.shards.at(rank);  // shards 0 and 1 are the halves of "a"
  }
  EXPECT_EQ(bytes, std::string(reinterpret_cast<const char*>(a_), sizeof(a_)));
  ASSERT_THAT(requests_, SizeIs(3));
  EXPECT_EQ(requests_[0].staged(), 0u);
  EXPECT_EQ(requests_[1].staged(), 6u);
}

TEST_F(CreateOnFleetTest, WhoAttachesWritesNothing) {
  v1::ProposeReply need_page;
  need_page.mutable_need_page()->set_index(0);
  replies_ = {need_page, Pending(), Done()};
  ASSERT_OK(Create());
  EXPECT_EQ(connection_->servers[0]->streams, 0);
}

TEST_F(CreateOnFleetTest, TheTrainersStateIsOfTheHistoryThatItGoesOnWith) {
  lineages_ = {1, 2};  // replaced between the two calls
  replies_ = {Done()};
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<OptimizerCore> core, Create());
  EXPECT_EQ(core->lineage(), 2u);
  EXPECT_EQ(core->trainer_state(), "of lineage 2");
}

TEST_F(CreateOnFleetTest, AWriteThatBrokeOffIsRepeated) {
  connection_->servers[1]->break_after = 1;
  replies_ = {Staging(6), Done()};
  ASSERT_OK(Create());
  EXPECT_EQ(connection_->servers[0]->streams, 1);
  EXPECT_EQ(connection_->servers[1]->streams, 2);
  EXPECT_THAT(connection_->servers[1]->received, SizeIs(1));
}

TEST_F(CreateOnFleetTest, AnotherDefinitionIsRefusedWithTheServersWords) {
  replies_ = {MakeError(absl::StatusCode::kFailedPrecondition,
                        "optimizer \"digits\" exists with a different definition: kind",
                        v1::DEFINITION_DIFFERS)};
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("exists with a different definition")));
}

TEST_F(CreateOnFleetTest, TheUsersDeadlineNamesWhoIsWaitedFor) {
  for (int i = 0; i < 1000; ++i) replies_.push_back(Pending());
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                 "create \"digits\": waited 60.0 s for the values of trainer ranks "
                                 "1"));
}

}  // namespace
}  // namespace shardstep::internal
