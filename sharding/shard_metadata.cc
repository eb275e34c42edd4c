#include "shardstep/sharding/shard_metadata.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

constexpr size_t kMaxDeviceBytes = 32;

bool AllDigits(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

// torch.device's grammar: a type, and perhaps a number that has no leading zero.
bool IsDevice(absl::string_view device) {
  if (device.size() > kMaxDeviceBytes) return false;
  const size_t colon = device.find(':');
  const absl::string_view type = device.substr(0, colon);
  if (type.empty() || !std::all_of(type.begin(), type.end(), absl::ascii_islower)) return false;
  if (colon == absl::string_view::npos) return true;
  const absl::string_view index = device.substr(colon + 1);
  return AllDigits(index) && (index == "0" || index[0] != '0');
}

absl::Status PlacementParseError(absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      "Could not parse remote_device: ", absl::CHexEscape(text.substr(0, 128)),
      ". The valid format is '<workername>/<device>' or 'rank:<rank>/<device>' or '<device>', "
      "and a shard's must name a server rank, as in 'rank:0/cpu'"));
}

absl::Status ValidatePlacement(const Placement& placement) {
  if (placement.server_rank < 0) {
    return absl::InvalidArgumentError(absl::StrCat("Invalid rank: ", placement.server_rank,
                                                   ", expected a server rank of 0 or above"));
  }
  if (!IsDevice(placement.device)) return PlacementParseError(ToString(placement));
  return absl::OkStatus();
}

// Each shard by itself, then whether all have as many dimensions as the first.
absl::Status ValidateEach(absl::Span<const ShardMetadata> shards) {
  for (const ShardMetadata& shard : shards) {
    SHARDSTEP_RETURN_IF_ERROR(ValidateShardMetadata(shard));
    if (shard.sizes.size() != shards[0].sizes.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("Found inconsistent ranks for shards: ", shards[0].sizes.size(), " and ",
                       shard.sizes.size()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Placement> ParsePlacement(absl::string_view text) {
  absl::string_view rest = text;
  if (!absl::ConsumePrefix(&rest, "rank:")) return PlacementParseError(text);
  const size_t slash = rest.find('/');
  const absl::string_view rank = rest.substr(0, slash);
  Placement placement;
  if (slash != absl::string_view::npos) placement.device = std::string(rest.substr(slash + 1));
  if (!AllDigits(rank) || !absl::SimpleAtoi(rank, &placement.server_rank) ||
      !IsDevice(placement.device)) {
    return PlacementParseError(text);
  }
  return placement;
}

std::string ToString(const Placement& placement) {
  return absl::StrCat("rank:", placement.server_rank, "/", placement.device);
}

std::string ToString(const ShardMetadata& shard) {
  return absl::StrCat("ShardMetadata(shard_offsets=", ShapeToString(shard.offsets),
                      ", shard_sizes=", ShapeToString(shard.sizes),
                      ", placement=", ToString(shard.placement), ")");
}

absl::Status ValidateShardMetadata(const ShardMetadata& shard) {
  if (shard.offsets.size() != shard.sizes.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shard_offsets and shard_sizes should have the same number of elements, found ",
        shard.offsets.size(), " and ", shard.sizes.size(), " elements respectively"));
  }
  if (shard.sizes.size() > kMaxDims) return NumElements(shard.sizes).status();
  for (size_t d = 0; d < shard.sizes.size(); ++d) {
    if (shard.offsets[d] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("shard_offsets should be >=0, found ", ShapeToString(shard.offsets)));
    }
    if (shard.sizes[d] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("shard_sizes should be >= 0, found ", ShapeToString(shard.sizes)));
    }
    if (shard.offsets[d] > std::numeric_limits<int64_t>::max() - shard.sizes[d]) {
      return absl::InvalidArgumentError(
          absl::StrCat("shard_offsets ", ShapeToString(shard.offsets), " and shard_sizes ",
                       ShapeToString(shard.sizes), ": sum exceeds 64 bits"));
    }
  }
  SHARDSTEP_RETURN_IF_ERROR(NumElements(shard.sizes).status());
  return ValidatePlacement(shard.placement);
}

absl::Status ValidateNonOverlapping(absl::Span<const ShardMetadata> shards) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateEach(shards));
  std::vector<Region> regions;
  regions.reserve(shards.size());
  for (const ShardMetadata& shard : shards) regions.push_back({shard.offsets, shard.sizes});
  const std::optional<std::pair<size_t, size_t>> pair = FindOverlappingPair(regions);
  if (pair.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("Shards ", ToString(shards[pair->first]),
                                                   " and ", ToString(shards[pair->second]),
                                                   " overlap"));
  }
  return absl::OkStatus();
}

absl::Status CheckTensor(absl::Span<const ShardMetadata> shards,
                         absl::Span<const int64_t> tensor_sizes) {
  if (shards.empty()) return absl::InvalidArgumentError("Empty shard list provided: []");
  SHARDSTEP_RETURN_IF_ERROR(ValidateEach(shards));
  SHARDSTEP_ASSIGN_OR_RETURN(const int64_t tensor_volume, NumElements(tensor_sizes));
  if (shards[0].sizes.size() != tensor_sizes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("Rank of tensor is ", tensor_sizes.size(),
                                                   ", but shards rank is ",
                                                   shards[0].sizes.size()));
  }
  int64_t total = 0;
  for (const ShardMetadata& shard : shards) {
    for (size_t d = 0; d < tensor_sizes.size(); ++d) {
      if (shard.sizes[d] == 0 || shard.offsets[d] + shard.sizes[d] <= tensor_sizes[d]) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("Shard offset ", shard.offsets[d], " and length ", shard.sizes[d],
                       " exceeds tensor dim: ", tensor_sizes[d], " for shard ", ToString(shard)));
    }
    // Overlapping shards could add up to more than 64 bits: the largest number stands for those.
    if (__builtin_add_overflow(total, NumElements(shard.sizes).value_or(0), &total)) {
      total = std::numeric_limits<int64_t>::max();
      break;
    }
  }
  if (total != tensor_volume) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Total volume of shards: ", total, " does not match tensor volume: ", tensor_volume,
        ", in other words all the individual shards do not cover the entire tensor"));
  }
  return absl::OkStatus();
}

absl::Status CheckPlacements(absl::Span<const ShardMetadata> shards, int num_servers) {
  for (const ShardMetadata& shard : shards) {
    const int rank = shard.placement.server_rank;
    if (rank < 0 || rank >= num_servers) {
      return absl::InvalidArgumentError(
          absl::StrCat("shard ", ToString(shard), ": Invalid rank: ", rank,
                       ", expected a server rank below ", num_servers, ", the number of servers"));
    }
  }
  return absl::OkStatus();
}

}  // namespace shardstep
