// Pushes of sessions that give parts of a parameter: what they do not give adds nothing.

#include "shardstep/server/push_table.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/frame.h"

namespace shardstep {
namespace {

// One ShardedTensor of 8 elements, whole on one server.
std::shared_ptr<const Layout> MakeLayout() {
  v1::Description description;
  v1::OptimizerDefinition* definition = description.mutable_definition();
  definition->set_name("m");
  definition->set_kind("SGD");
  definition->mutable_mode()->mutable_synchronous()->set_trainers(2);
  v1::Parameter* parameter = definition->add_parameters();
  parameter->set_name("a");
  parameter->set_dtype(v1::FLOAT32);
  parameter->add_sizes(8);
  parameter->set_sharded(true);
  definition->add_groups()->add_parameters(0);
  *description.mutable_groups() = definition->groups();
  description.mutable_plan()->set_plan_id("p");
  v1::PlannedShard* shard = description.mutable_plan()->add_shards();
  shard->mutable_metadata()->mutable_region()->add_offsets(0);
  shard->mutable_metadata()->mutable_region()->add_sizes(8);
  shard->mutable_metadata()->set_device("cpu");
  return Layout::Make(description, 0).value();
}

TEST(PushTableTest, WhatASessionDoesNotGiveIsZeroWhateverItsMemoryHeld) {
  MemoryBudget budget(1 << 20);
  PushTable table(&budget);
  table.SetLayout(MakeLayout());
  v1::AnnounceSessions::Session session;
  session.set_session(1);
  v1::DeclaredRegion* region = session.add_regions();
  region->set_parameter("a");
  region->mutable_region()->add_offsets(2);
  region->mutable_region()->add_sizes(3);
  table.Announce(session);
  v1::Begin begin;
  begin.mutable_header()->set_session(1);
  begin.mutable_header()->set_sequence(1);
  begin.set_weight(1);
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<Push> push, table.Begin(begin));
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

}  // namespace
}  // namespace shardstep
