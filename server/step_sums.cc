#include "shardstep/server/step_sums.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// Calls fn(part_offset, whole_offset, count) for each run of a shard's part of what is kept per
// `extent`, within all that is kept of the parameter.
template <typename Fn>
void ForEachRunOfPart(Extent extent, const Region& shard, const Shape& sizes, Fn fn) {
  const Region part = ExtentRegion(extent, shard);
  const Region whole{Shape(sizes.size(), 0), ExtentSizes(extent, sizes)};
  ForEachRun(part, part, whole, fn);
}

// By parameter, sum, extent.
using TotalKey = std::tuple<uint32_t, uint32_t, int>;

absl::Status CheckSum(const Layout& layout, size_t server, const v1::ShardSum& sum) {
  const auto refuse = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("server ", server, ": sum ", sum.sum(),
                                                   " of shard ", sum.shard(), ": ", what));
  };
  if (sum.shard() >= layout.plan.shards.size()) return refuse("the plan has no such shard");
  const PlannedShard& shard = layout.plan.shards[sum.shard()];
  if (static_cast<size_t>(shard.metadata.placement.server_rank) != server) {
    return refuse("another server owns it");
  }
  if (!v1::StateSpec::Extent_IsValid(sum.extent())) return refuse("of an unknown extent");
  const Region part = ExtentRegion(static_cast<Extent>(sum.extent()), RegionOf(shard.metadata));
  const int64_t count = ElementCount(part.sizes);
  if (sum.hi_size() != count || sum.lo_size() != count) {
    return refuse(absl::StrCat(sum.hi_size(), " and ", sum.lo_size(), " values, expected ", count));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<v1::ShardSum> ShardSumsToProto(const Layout& layout,
                                           const std::vector<ShardSums>& sums) {
  std::vector<v1::ShardSum> messages;
  messages.reserve(sums.size());
  for (const ShardSums& part : sums) {
    v1::ShardSum& message = messages.emplace_back();
    message.set_shard(layout.local[part.shard].shard);
    message.set_sum(part.sum);
    message.set_extent(static_cast<v1::StateSpec::Extent>(part.extent));
    message.mutable_hi()->Reserve(part.values.size());
    message.mutable_lo()->Reserve(part.values.size());
    for (const CompensatedSum& value : part.values) {
      message.add_hi(value.hi);
      message.add_lo(value.lo);
    }
  }
  return messages;
}

absl::StatusOr<v1::Totals> AddUp(const Layout& layout, const std::vector<v1::Reduced>& answers) {
  std::vector<const v1::ShardSum*> sums;
  for (size_t server = 0; server < answers.size(); ++server) {
    for (const v1::ShardSum& sum : answers[server].sums()) {
      SHARDSTEP_RETURN_IF_ERROR(CheckSum(layout, server, sum));
      sums.push_back(&sum);
    }
  }
  std::stable_sort(sums.begin(), sums.end(), [](const v1::ShardSum* a, const v1::ShardSum* b) {
    return a->shard() < b->shard();
  });
  std::map<TotalKey, std::vector<CompensatedSum>> added;
  int64_t values = 0;
  for (const v1::ShardSum* sum : sums) {
    const PlannedShard& shard = layout.plan.shards[sum->shard()];
    const Shape& sizes = layout.parameters[shard.parameter].sizes;
    const auto extent = static_cast<Extent>(sum->extent());
    std::vector<CompensatedSum>& total =
        added[{static_cast<uint32_t>(shard.parameter), sum->sum(), sum->extent()}];
    if (total.empty()) {
      const int64_t count = ElementCount(ExtentSizes(extent, sizes));
      values += count;
      if (values > kMaxSums) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "parameter \"", layout.parameters[shard.parameter].name, "\": ", count,
            " sums over several shards bring a step to ", values, ", expected at most ", kMaxSums,
            "; cut it where fewer rows or columns are cut"));
      }
      total.resize(count);
    }
    ForEachRunOfPart(extent, RegionOf(shard.metadata), sizes,
                     [&](int64_t from, int64_t to, int64_t count) {
                       for (int64_t i = 0; i < count; ++i) {
                         total[to + i] = Sum(total[to + i], {sum->hi(from + i), sum->lo(from + i)});
                       }
                     });
  }
  v1::Totals totals;
  for (const auto& [key, values] : added) {
    v1::Totals::Total* total = totals.add_totals();
    total->set_parameter(std::get<0>(key));
    total->set_sum(std::get<1>(key));
    total->set_extent(static_cast<v1::StateSpec::Extent>(std::get<2>(key)));
    for (const CompensatedSum& value : values) {
      total->add_hi(value.hi);
      total->add_lo(value.lo);
    }
  }
  return totals;
}

absl::StatusOr<std::vector<ShardSums>> TotalsFor(const Layout& layout,
                                                 const std::vector<ShardSums>& asked,
                                                 const v1::Totals& totals) {
  std::map<TotalKey, const v1::Totals::Total*> found;
  for (const v1::Totals::Total& total : totals.totals()) {
    found[{total.parameter(), total.sum(), total.extent()}] = &total;
  }
  std::vector<ShardSums> parts = asked;
  for (ShardSums& part : parts) {
    const LocalShardInfo& shard = layout.local[part.shard];
    const ParameterShape& parameter = layout.parameters[shard.parameter];
    const auto total = found.find({static_cast<uint32_t>(shard.parameter),
                                   static_cast<uint32_t>(part.sum), static_cast<int>(part.extent)});
    const int64_t count = ElementCount(ExtentSizes(part.extent, parameter.sizes));
    if (total == found.end() || total->second->hi_size() != count ||
        total->second->lo_size() != count) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", parameter.name, "\": expected a total of ", count,
                       " values of sum ", part.sum, " per ", ExtentName(part.extent)));
    }
    ForEachRunOfPart(part.extent, shard.region, parameter.sizes,
                     [&, from = total->second](int64_t to, int64_t at, int64_t length) {
                       for (int64_t i = 0; i < length; ++i) {
                         part.values[to + i] = {from->hi(at + i), from->lo(at + i)};
                       }
                     });
  }
  return parts;
}

}  // namespace shardstep
