#include "shardstep/checkpoint/sharding_json.h"

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/json_fields.h"
#include "shardstep/sharding/shard_metadata.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::StatusOr<Placement> PlacementFromJson(const Json& json) {
  if (!json.is_string()) return absl::InvalidArgumentError("placement is not a string");
  return ParsePlacement(json.get_ref<const std::string&>());
}

// offsets, sizes and placement at json[first..first+3).
absl::StatusOr<ShardMetadata> ShardFromJson(const Json& json, size_t first) {
  ShardMetadata shard;
  SHARDSTEP_ASSIGN_OR_RETURN(shard.offsets, SizesFromJson(json[first]));
  SHARDSTEP_ASSIGN_OR_RETURN(shard.sizes, SizesFromJson(json[first + 1]));
  SHARDSTEP_ASSIGN_OR_RETURN(shard.placement, PlacementFromJson(json[first + 2]));
  SHARDSTEP_RETURN_IF_ERROR(ValidateShardMetadata(shard));
  return shard;
}

absl::Status NotAShard(size_t position) {
  return absl::InvalidArgumentError(absl::StrCat("shard ", position, ": not a list of its parts"));
}

// json[*at..] as far as it is of parameter `index`, which the shards cover.
absl::StatusOr<std::vector<ShardMetadata>> ShardsOf(const Json& json, size_t index,
                                                    const ParameterShape& parameter, size_t* at) {
  std::vector<ShardMetadata> shards;
  for (; *at < json.size(); ++*at) {
    const Json& entry = json[*at];
    if (!entry.is_array() || entry.size() != 4 || !entry[0].is_number_unsigned()) {
      return NotAShard(*at);
    }
    if (entry[0].get<uint64_t>() != index) break;
    SHARDSTEP_ASSIGN_OR_RETURN(ShardMetadata shard, ShardFromJson(entry, 1));
    shards.push_back(std::move(shard));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckTensor(shards, parameter.sizes));
  SHARDSTEP_RETURN_IF_ERROR(ValidateNonOverlapping(shards));
  return shards;
}

}  // namespace

Json SpecToJson(const ShardingSpec& spec) {
  if (const auto* whole = std::get_if<Whole>(&spec)) {
    return Json{{"whole", ToString(Placement{whole->server_rank, whole->device})}};
  }
  Json list = Json::array();
  if (const auto* chunk = std::get_if<Chunk>(&spec)) {
    for (const Placement& placement : chunk->placements) list.push_back(ToString(placement));
    return Json{{"chunk", chunk->dim}, {"placements", std::move(list)}};
  }
  for (const ShardMetadata& shard : std::get<Enumerable>(spec).shards) {
    list.push_back(Json::array({shard.offsets, shard.sizes, ToString(shard.placement)}));
  }
  return Json{{"shards", std::move(list)}};
}

absl::StatusOr<ShardingSpec> SpecFromJson(const Json& json) {
  SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, "sharding spec"));
  if (const Json* whole = fields.Find("whole")) {
    SHARDSTEP_ASSIGN_OR_RETURN(const Placement placement, PlacementFromJson(*whole));
    return Whole{placement.server_rank, placement.device};
  }
  if (const Json* dim = fields.Find("chunk")) {
    Chunk chunk;
    if (!dim->is_number_integer() || dim->get<int64_t>() < -kMaxDims ||
        dim->get<int64_t>() >= kMaxDims) {
      return fields.Error("chunk", "is not the number of a dimension");
    }
    chunk.dim = dim->get<int>();
    SHARDSTEP_ASSIGN_OR_RETURN(const Json* list, fields.List("placements", kMaxShardsPerParameter));
    for (const Json& entry : *list) {
      SHARDSTEP_ASSIGN_OR_RETURN(Placement placement, PlacementFromJson(entry));
      chunk.placements.push_back(std::move(placement));
    }
    return chunk;
  }
  Enumerable enumerable;
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* list, fields.List("shards", kMaxShardsPerParameter));
  for (const Json& entry : *list) {
    if (!entry.is_array() || entry.size() != 3) return NotAShard(enumerable.shards.size());
    SHARDSTEP_ASSIGN_OR_RETURN(ShardMetadata shard, ShardFromJson(entry, 0));
    enumerable.shards.push_back(std::move(shard));
  }
  return enumerable;
}

Json PlanToJson(const Plan& plan) {
  Json shards = Json::array();
  for (const PlannedShard& shard : plan.shards) {
    const ShardMetadata& metadata = shard.metadata;
    shards.push_back(Json::array(
        {shard.parameter, metadata.offsets, metadata.sizes, ToString(metadata.placement)}));
  }
  return Json{{"plan_id", plan.plan_id}, {"shards", std::move(shards)}};
}

absl::StatusOr<Plan> PlanFromJson(const Json& json, absl::Span<const ParameterShape> parameters) {
  SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, "plan"));
  Plan plan;
  SHARDSTEP_ASSIGN_OR_RETURN(plan.plan_id, fields.String("plan_id"));
  if (plan.plan_id.empty() || plan.plan_id.size() > kMaxNameBytes) {
    return fields.Error("plan_id", absl::StrCat("has ", plan.plan_id.size(), " bytes"));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* list, fields.List("shards", kMaxPlannedShards));
  size_t at = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    absl::StatusOr<std::vector<ShardMetadata>> shards = ShardsOf(*list, i, parameters[i], &at);
    if (!shards.ok()) {
      return AtPlace(absl::StrCat("plan: parameter \"", parameters[i].name, "\""), shards.status());
    }
    for (ShardMetadata& shard : *shards) {
      plan.shards.push_back({static_cast<int>(i), std::move(shard)});
    }
  }
  if (at == list->size()) return plan;
  return fields.Error("shards", absl::StrCat("does not follow the order of the ", parameters.size(),
                                             " parameters at shard ", at));
}

}  // namespace shardstep
