#include "shardstep/server/push_checks.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/server/interval_set.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

// The elements of the shard that a session gives.
IntervalSet Expected(const LocalShardInfo& shard, const Layout& layout, const GivenRegions& given) {
  if (!layout.sharded[shard.parameter]) return IntervalSet::Full(shard.elements);
  IntervalSet expected;
  const auto regions = given.find(layout.parameters[shard.parameter].name);
  if (regions == given.end()) return expected;
  for (const Region& region : regions->second) {
    if (region.sizes.size() != shard.region.sizes.size()) continue;
    const auto common = Intersect(region, shard.region);
    if (!common.has_value()) continue;
    ForEachRun(*common, shard.region, region, [&](int64_t offset, int64_t, int64_t count) {
      expected.Add(offset, offset + count);
    });
  }
  return expected;
}

}  // namespace

GivenRegions GivenBy(const v1::AnnounceSessions::Session& declared) {
  GivenRegions given;
  for (const v1::DeclaredRegion& one : declared.regions()) {
    auto region = RegionFromProto(one.region());
    if (region.ok()) given[one.parameter()].push_back(*std::move(region));
  }
  return given;
}

absl::Status CheckRows(const Push& push) {
  const Layout& layout = push.assembly.layout();
  const auto refuse = [&](int parameter, absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(
        "push ", push.sequence, ": parameter \"", layout.parameters[parameter].name, "\": ", what));
  };
  const int parameters = static_cast<int>(layout.parameters.size());
  for (int i = 0; i < static_cast<int>(push.rows.size() * 8); ++i) {
    if (!Touched(push.rows, i)) continue;
    if (i >= parameters || !Touched(push.touched, i)) {
      return absl::InvalidArgumentError(absl::StrCat("push ", push.sequence, ": rows of parameter ",
                                                     i, ", which the push does not touch"));
    }
    if (layout.parameters[i].sizes.empty()) return refuse(i, "has no dimensions, so no rows");
    if (layout.sharded[i]) {
      return refuse(i, "is given in regions; its gradient cannot consist of rows");
    }
  }
  for (size_t local = 0; local < layout.local.size(); ++local) {
    const int parameter = layout.local[local].parameter;
    if (push.assembly.rows(local).empty() || Touched(push.rows, parameter)) continue;
    return refuse(parameter,
                  "rows arrived (the push does not say that its gradient consists of rows)");
  }
  return absl::OkStatus();
}

absl::Status CheckCoverage(const Push& push, const GivenRegions& given) {
  // Its own layout: what was added since it began has no gradient in it.
  const Layout& layout = push.assembly.layout();
  for (int i = static_cast<int>(layout.parameters.size());
       i < static_cast<int>(push.touched.size() * 8); ++i) {
    if (Touched(push.touched, i)) {
      return absl::InvalidArgumentError(absl::StrCat("push ", push.sequence, " touches parameter ",
                                                     i, ", the optimizer has ",
                                                     layout.parameters.size()));
    }
  }
  for (size_t local = 0; local < layout.local.size(); ++local) {
    const LocalShardInfo& shard = layout.local[local];
    const IntervalSet& got = push.assembly.coverage(local);
    const bool touched = Touched(push.touched, shard.parameter);
    if (!touched && got.size() == 0) continue;
    const bool whole = touched && !Touched(push.rows, shard.parameter);
    const IntervalSet expected = whole ? Expected(shard, layout, given) : IntervalSet();
    if (got == expected) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("push ", push.sequence, ": parameter \"",
                     layout.parameters[shard.parameter].name, "\", shard ", shard.shard, ": ",
                     got.size(), " elements arrived, expected ", expected.size(),
                     whole ? " (a push covers all that its session gives of a parameter it touches)"
                     : touched ? " (the push says that this gradient consists of rows)"
                               : " (the push says that it does not touch the parameter)"));
  }
  return absl::OkStatus();
}

absl::Status CheckPartial(const v1::Contribution& contribution,
                          absl::Span<const std::shared_ptr<const Push>> pushes,
                          const Layout& layout) {
  const v1::PartialPushes& partial = contribution.partial();
  const auto refuse = [&](int parameter, auto&&... what) {
    return absl::InvalidArgumentError(
        absl::StrCat("trainer rank ", contribution.trainer_rank(), ": parameter \"",
                     layout.parameters[parameter].name, "\": ", what...));
  };
  const auto form = [](bool touched, bool rows) {
    return !touched ? "nothing" : rows ? "rows" : "the whole";
  };
  for (const LocalShardInfo& shard : layout.local) {
    bool touched = false;
    bool rows = true;
    for (const auto& push : pushes) {
      if (!Touched(push->touched, shard.parameter)) continue;
      touched = true;
      rows = rows && Touched(push->rows, shard.parameter);
    }
    const absl::string_view said =
        form(Touched(partial.touched(), shard.parameter), Touched(partial.rows(), shard.parameter));
    if (said == form(touched, rows)) continue;
    return refuse(shard.parameter, "its step says that its pushes touch ", said,
                  " of it, those sent to server ", layout.server_rank, " touch ",
                  form(touched, rows));
  }
  for (const auto& push : pushes) {
    std::set<int> servers;
    for (const v1::PartialPushes::SentTo& sent : partial.sent_to()) {
      if (std::binary_search(sent.sequences().begin(), sent.sequences().end(), push->sequence)) {
        servers.insert(sent.server_rank());
      }
    }
    for (const PlannedShard& shard : layout.plan.shards) {
      if (!Touched(push->touched, shard.parameter) ||
          servers.count(shard.metadata.placement.server_rank) > 0) {
        continue;
      }
      return refuse(shard.parameter, "push ", push->sequence,
                    " touches it, but was not sent to server ",
                    shard.metadata.placement.server_rank, ", which has a shard of it");
    }
  }
  return absl::OkStatus();
}

}  // namespace shardstep
