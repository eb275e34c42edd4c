#include "shardstep/server/base_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/ops/equal.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"
#include "shardstep/checkpoint/simulated_file_system.h"
#include "shardstep/server/record_file.h"
#include "shardstep/server/small_base.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::_;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kPath[] = "/base";

class BaseFileTest : public ::testing::Test {
 protected:
  std::string Content() { return ReadWholeFile(&files_, kPath, 1 << 20).value(); }
  void Replace(const std::string& content) {
    ASSERT_OK(files_.RemoveFile(kPath));
    ASSERT_OK(WriteWholeFile(&files_, kPath, content));
  }
  static auto Broken() {
    return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(absl::StrCat("\"", kPath, "\": byte ")));
  }

  SimulatedFileSystem files_;
};

TEST_F(BaseFileTest, WhatWasWrittenIsRead) {
  v1::BaseHeader header = SmallBaseHeader(17);
  header.add_pending_lsns(15);
  header.set_chain_hash(99);
  const LocalState state = SmallState(1.5);
  ASSERT_OK(WriteBaseFile(&files_, kPath, header, state));
  // Its content is synced; its name is the caller's to sync.
  ASSERT_OK(files_.SyncDirectory("/"));
  files_.Crash([] { return uint64_t{2}; });
  ASSERT_OK_AND_ASSIGN(Base base, ReadBaseFile(&files_, kPath, 0));
  ASSERT_EQ(base.header.scalars_size(), 2);
  base.header.clear_scalars();
  EXPECT_TRUE(MessageDifferencer::Equals(base.header, header));
  ASSERT_EQ(base.state.shards.size(), state.shards.size());
  for (size_t i = 0; i < state.shards.size(); ++i) {
    EXPECT_EQ(base.state.shards[i].parameter, state.shards[i].parameter);
    EXPECT_TRUE(at::equal(base.state.shards[i].value, state.shards[i].value));
    EXPECT_EQ(base.state.shards[i].value.scalar_type(), state.shards[i].value.scalar_type());
    ASSERT_EQ(base.state.shards[i].states.size(), state.shards[i].states.size());
    for (size_t j = 0; j < state.shards[i].states.size(); ++j) {
      EXPECT_EQ(base.state.shards[i].states[j].name, state.shards[i].states[j].name);
      EXPECT_TRUE(
          at::equal(base.state.shards[i].states[j].tensor, state.shards[i].states[j].tensor));
    }
  }
  ASSERT_EQ(base.state.scalars[0].size(), 1u);
  EXPECT_EQ(base.state.scalars[0][0].name, "step");
  EXPECT_EQ(base.state.scalars[0][0].value, 7);
  EXPECT_EQ(base.state.scalars[0][0].dtype, DType::kFloat32);
  EXPECT_TRUE(base.state.scalars[1].empty());
}

TEST_F(BaseFileTest, AStateOfAnotherExtentHasItsOwnSize) {
  v1::BaseHeader header = SmallBaseHeader(17);
  header.mutable_description()->mutable_states(0)->set_extent(v1::StateSpec::TENSOR);
  LocalState state = SmallState(1.5);
  state.shards[0].states[0].tensor = at::full({1}, 4, at::kFloat);
  state.shards[1].states[0].tensor = at::full({1}, 4, at::kFloat);
  ASSERT_OK(WriteBaseFile(&files_, kPath, header, state));
  ASSERT_OK_AND_ASSIGN(const Base base, ReadBaseFile(&files_, kPath, 0));
  EXPECT_TRUE(at::equal(base.state.shards[1].states[0].tensor, state.shards[1].states[0].tensor));
  EXPECT_EQ(base.state.shards[1].states[1].tensor.numel(), 3);

  ASSERT_OK(files_.RemoveFile(kPath));
  ASSERT_OK(WriteBaseFile(&files_, kPath, header, SmallState(1.5)));
  EXPECT_THAT(ReadBaseFile(&files_, kPath, 0),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("\"exp_avg\" that does not fit")));
}

TEST_F(BaseFileTest, EveryBrokenByteIsFound) {
  ASSERT_OK(WriteBaseFile(&files_, kPath, SmallBaseHeader(17), SmallState(1.5)));
  const std::string content = Content();
  for (size_t at = 0; at < content.size(); ++at) {
    SCOPED_TRACE(absl::StrCat("byte ", at, " of ", content.size()));
    std::string broken = content;
    broken[at] ^= 0x10;
    Replace(broken);
    EXPECT_THAT(ReadBaseFile(&files_, kPath, 0).status(), Broken());
  }
}

TEST_F(BaseFileTest, EveryOtherLengthIsFound) {
  ASSERT_OK(WriteBaseFile(&files_, kPath, SmallBaseHeader(17), SmallState(1.5)));
  const std::string content = Content();
  for (size_t size = 0; size < content.size(); ++size) {
    SCOPED_TRACE(absl::StrCat("the first ", size, " bytes of ", content.size()));
    Replace(content.substr(0, size));
    EXPECT_THAT(ReadBaseFile(&files_, kPath, 0).status(), Broken());
  }
  Replace(content + "x");
  EXPECT_THAT(ReadBaseFile(&files_, kPath, 0).status(), Broken());
}

// Whole records that make no whole base.
TEST_F(BaseFileTest, WhatDoesNotFitItsDescriptionIsRefused) {
  ASSERT_OK(WriteBaseFile(&files_, kPath, SmallBaseHeader(17), SmallState(1.5)));
  EXPECT_THAT(ReadBaseFile(&files_, kPath, 1).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("does not fit shard")))
      << "another server's";
  EXPECT_THAT(ReadBaseFile(&files_, "/other", 0).status(), StatusIs(absl::StatusCode::kNotFound));

  const auto written = [&](v1::BaseHeader header, LocalState state) {
    files_.RemoveFile(kPath).IgnoreError();
    EXPECT_OK(WriteBaseFile(&files_, kPath, std::move(header), state));
    return ReadBaseFile(&files_, kPath, 0).status();
  };
  LocalState state = SmallState(1);
  state.shards[0].states[1].name = state.shards[0].states[0].name;
  EXPECT_THAT(written(SmallBaseHeader(1), state), AllOf(Broken(), StatusIs(_, HasSubstr("twice"))));
  state = SmallState(1);
  state.shards.pop_back();
  EXPECT_THAT(written(SmallBaseHeader(1), state),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("has no value of shard 3")));
  state = SmallState(1);
  state.shards[0].states[1].name = "momentum_buffer";
  EXPECT_THAT(written(SmallBaseHeader(1), state),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("\"momentum_buffer\" that")));
  state = SmallState(1);
  state.scalars.pop_back();
  EXPECT_THAT(written(SmallBaseHeader(1), state),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("scalars of 1 parameters")));
  state = SmallState(1);
  state.shards[1].value = at::full({2}, 1, at::kFloat);
  EXPECT_THAT(written(SmallBaseHeader(1), state), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(written(v1::BaseHeader(), SmallState(1)), StatusIs(absl::StatusCode::kDataLoss));

  v1::LogRecord header;
  *header.mutable_base() = SmallBaseHeader(1);
  v1::LogRecord end;
  end.mutable_end()->set_tensors(1);
  const auto made_of = [&](const std::vector<v1::LogRecord>& records) {
    files_.RemoveFile(kPath).IgnoreError();
    RecordWriter writer(files_.CreateFile(kPath).value(), ChainPosition());
    for (const v1::LogRecord& record : records) EXPECT_OK(writer.Append(record, {}));
    return ReadBaseFile(&files_, kPath, 0).status();
  };
  EXPECT_THAT(made_of({end}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("header of a base")));
  header.mutable_base()->add_scalars();
  header.mutable_base()->add_scalars();
  EXPECT_THAT(made_of({header, end}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("end behind 0 tensors")));
  EXPECT_THAT(made_of({header, header}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("end behind 0 tensors")));
}

TEST_F(BaseFileTest, EveryErrorOfTheDiskIsReturned) {
  for (int64_t at = 0;; ++at) {
    files_.FailChange(at, absl::ResourceExhaustedError("full"));
    const absl::Status written = WriteBaseFile(&files_, kPath, SmallBaseHeader(1), SmallState(1));
    if (written.ok()) {
      EXPECT_GT(at, 20);
      break;
    }
    EXPECT_THAT(written, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(kPath)));
    files_.RemoveFile(kPath).IgnoreError();
  }
}

}  // namespace
}  // namespace shardstep
