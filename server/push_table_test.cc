// Pushes of sessions that give parts of a parameter: what they do not give adds nothing.

#include "shardstep/server/push_table.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/frame.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

// ShardedTensors of 8 elements, whole on one server.
std::shared_ptr<const Layout> MakeLayout(const std::vector<std::string>& names) {
  v1::Description description;
  v1::OptimizerDefinition* definition = description.mutable_definition();
  definition->set_name("m");
  definition->set_kind("SGD");
  definition->mutable_mode()->mutable_synchronous()->set_trainers(2);
  definition->add_groups();
  description.mutable_plan()->set_plan_id("p");
  for (size_t i = 0; i < names.size(); ++i) {
    v1::Parameter* parameter = definition->add_parameters();
    parameter->set_name(names[i]);
    parameter->set_dtype(v1::FLOAT32);
    parameter->add_sizes(8);
    parameter->set_sharded(true);
    definition->mutable_groups(0)->add_parameters(i);
    v1::PlannedShard* shard = description.mutable_plan()->add_shards();
    shard->set_parameter(i);
    shard->mutable_metadata()->mutable_region()->add_offsets(0);
    shard->mutable_metadata()->mutable_region()->add_sizes(8);
    shard->mutable_metadata()->set_device("cpu");
  }
  *description.mutable_groups() = definition->groups();
  return Layout::Make(description, 0).value();
}

void Declare(const char* name, int64_t offset, int64_t size,
             v1::AnnounceSessions::Session* session) {
  v1::DeclaredRegion* region = session->add_regions();
  region->set_parameter(name);
  region->mutable_region()->add_offsets(offset);
  region->mutable_region()->add_sizes(size);
}

v1::Begin MakeBegin(uint64_t sequence) {
  v1::Begin begin;
  begin.mutable_header()->set_session(1);
  begin.mutable_header()->set_sequence(sequence);
  begin.set_weight(1);
  return begin;
}

TEST(PushTableTest, WhatASessionDoesNotGiveIsZeroWhateverItsMemoryHeld) {
  MemoryBudget budget(1 << 20);
  PushTable table(&budget);
  table.SetLayout(MakeLayout({"a"}));
  v1::AnnounceSessions::Session session;
  session.set_session(1);
  Declare("a", 2, 3, &session);
  table.Announce(session);
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<Push> push, table.Begin(MakeBegin(1)));
  const std::vector<float> given = {1, 2, 3};
  const absl::string_view payload(reinterpret_cast<const char*>(given.data()),
                                  given.size() * sizeof(float));
  v1::FrameHeader header;
  v1::Slice* slice = header.mutable_slices()->add_slices();
  slice->set_offset(2);
  slice->set_count(3);
  slice->set_dtype(v1::FLOAT32);
  const FramePrefix prefix = EncodeFramePrefix(header, {payload});
  ASSERT_OK_AND_ASSIGN(const FrameView frame, DecodeFrame({prefix.bytes, payload}));
  ASSERT_OK(push->assembly.Apply(frame));
  // Memory that was used before.
  float* const data = static_cast<float*>(push->assembly.buffer(0).data_ptr());
  std::fill(data, data + 2, std::numeric_limits<float>::quiet_NaN());
  std::fill(data + 5, data + 8, 7.0F);
  v1::End end;
  end.set_frames(1);
  end.set_digest(push->assembly.digest());
  end.set_touched("\x01");
  ASSERT_OK(table.End(push, end));
  EXPECT_EQ(std::vector<float>(data, data + 8), (std::vector<float>{0, 0, 1, 2, 3, 0, 0, 0}));
}

// Zeros of `count` elements each, as {shard, offset, count}.
absl::Status PushZeros(uint64_t sequence, const std::vector<std::array<uint64_t, 3>>& slices,
                       PushTable* table) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::shared_ptr<Push> push, table->Begin(MakeBegin(sequence)));
  v1::FrameHeader header;
  for (const auto& [shard, offset, count] : slices) {
    v1::Slice* slice = header.mutable_slices()->add_slices();
    slice->set_shard(shard);
    slice->set_offset(offset);
    slice->set_count(count);
    slice->set_dtype(v1::FLOAT32);
    slice->set_body(v1::Slice::ZERO);
  }
  const FramePrefix prefix = EncodeFramePrefix(header, {});
  SHARDSTEP_ASSIGN_OR_RETURN(const FrameView frame, DecodeFrame({prefix.bytes}));
  SHARDSTEP_RETURN_IF_ERROR(push->assembly.Apply(frame));
  v1::End end;
  end.set_frames(1);
  end.set_digest(push->assembly.digest());
  end.set_touched("\x03");
  return table->End(push, end);
}

TEST(PushTableTest, EachParameterIsCoveredByWhatTheSessionGivesOfIt) {
  MemoryBudget budget(1 << 20);
  PushTable table(&budget);
  table.SetLayout(MakeLayout({"a", "b"}));
  v1::AnnounceSessions::Session session;
  session.set_session(1);
  Declare("b", 6, 2, &session);
  Declare("a", 2, 3, &session);
  Declare("b", 0, 1, &session);
  table.Announce(session);
  EXPECT_OK(PushZeros(1, {{0, 2, 3}, {1, 0, 1}, {1, 6, 2}}, &table));
  EXPECT_THAT(PushZeros(2, {{1, 2, 3}, {0, 0, 1}, {0, 6, 2}}, &table),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("parameter \"a\"")));
  // Also with parameters added meanwhile, which the session does not give.
  table.ExtendLayout(MakeLayout({"a", "b", "c"}));
  EXPECT_OK(PushZeros(3, {{0, 2, 3}, {1, 0, 1}, {1, 6, 2}}, &table));
}

}  // namespace
}  // namespace shardstep
