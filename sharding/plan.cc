#include "shardstep/sharding/plan.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// FNV-1a with its published 128-bit basis and prime. Numbers go in as 8 bytes, lowest first; texts
// and lists after their length, so that no two plans give the same bytes.
class PlanHash {
 public:
  void Add(absl::string_view text) {
    Add(static_cast<int64_t>(text.size()));
    for (char c : text) AddByte(static_cast<uint8_t>(c));
  }
  void Add(int64_t number) {
    for (int shift = 0; shift < 64; shift += 8) AddByte(static_cast<uint64_t>(number) >> shift);
  }
  void Add(absl::Span<const int64_t> numbers) {
    Add(static_cast<int64_t>(numbers.size()));
    for (int64_t number : numbers) Add(number);
  }
  std::string Hex() const {
    return absl::StrFormat("%016x%016x", absl::Uint128High64(hash_), absl::Uint128Low64(hash_));
  }

 private:
  void AddByte(uint8_t byte) {
    hash_ ^= byte;
    hash_ *= absl::MakeUint128(0x0000000001000000, 0x000000000000013B);
  }

  absl::uint128 hash_ = absl::MakeUint128(0x6C62272E07BB0142, 0x62B821756295C58D);
};

std::string PlanId(absl::Span<const ParameterShape> parameters,
                   absl::Span<const PlannedShard> shards) {
  PlanHash hash;
  hash.Add(static_cast<int64_t>(parameters.size()));
  for (const ParameterShape& parameter : parameters) {
    hash.Add(parameter.name);
    hash.Add(static_cast<int64_t>(parameter.dtype));
    hash.Add(parameter.sizes);
  }
  hash.Add(static_cast<int64_t>(shards.size()));
  for (const PlannedShard& shard : shards) {
    hash.Add(static_cast<int64_t>(shard.parameter));
    hash.Add(shard.metadata.offsets);
    hash.Add(shard.metadata.sizes);
    hash.Add(static_cast<int64_t>(shard.metadata.placement.server_rank));
    hash.Add(shard.metadata.placement.device);
  }
  return hash.Hex();
}

absl::Status Annotate(const ParameterShape& parameter, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat("parameter \"", parameter.name, "\": ", status.message()));
}

ShardingSpec ChooseSpec(const ParameterShape& parameter, int64_t bytes,
                        const std::vector<int64_t>& server_bytes, const PlannerOptions& options) {
  const Shape& sizes = parameter.sizes;
  if (bytes <= options.whole_below_bytes || sizes.empty()) {
    const auto least = std::min_element(server_bytes.begin(), server_bytes.end());
    return Whole{static_cast<int>(least - server_bytes.begin()), "cpu"};
  }
  Chunk chunk;
  const int64_t num_servers = server_bytes.size();
  if (sizes[0] < num_servers) {
    const auto end = sizes.end() - (options.whole_rows && sizes.size() > 1 ? 1 : 0);
    chunk.dim = static_cast<int>(std::max_element(sizes.begin(), end) - sizes.begin());
  }
  for (int rank = 0; rank < num_servers; ++rank) chunk.placements.push_back({rank, "cpu"});
  return chunk;
}

// Whether servers can keep a parameter of this dtype.
absl::Status CheckDType(const ParameterShape& parameter) {
  const DType dtype = parameter.dtype;
  if (!HasMaster(dtype) && dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dtype ", DTypeName(dtype), ", expected float32, float64, float16 or bfloat16"));
  }
  if (HasMaster(dtype) && !parameter.master) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dtype ", DTypeName(dtype), " with master=false, expected master=true: without a float32 ",
        "master the bits that SGD and RMSprop give would depend on the sharding"));
  }
  return absl::OkStatus();
}

// Names, dtypes and sizes of the parameters from first_new on, and that all bytes of all parameters
// fit int64, so that no sum over shards can overflow.
absl::Status ValidateParameters(absl::Span<const ParameterShape> parameters, size_t first_new) {
  if (parameters.size() > kMaxParameters) {
    return absl::InvalidArgumentError(absl::StrCat(
        "optimizer has ", parameters.size(), " parameters, expected at most ", kMaxParameters));
  }
  absl::flat_hash_set<absl::string_view> names;
  names.reserve(parameters.size());
  int64_t total_bytes = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterShape& parameter = parameters[i];
    if (i >= first_new) {
      SHARDSTEP_RETURN_IF_ERROR(ValidateName(parameter.name));
      const absl::Status dtype = CheckDType(parameter);
      if (!dtype.ok()) return Annotate(parameter, dtype);
    }
    if (!names.insert(parameter.name).second) {
      return Annotate(parameter, absl::InvalidArgumentError("name appears twice"));
    }
    const absl::StatusOr<int64_t> bytes = NumBytes(parameter.sizes, MasterDType(parameter.dtype));
    if (!bytes.ok()) return Annotate(parameter, bytes.status());
    if (__builtin_add_overflow(total_bytes, *bytes, &total_bytes)) {
      return Annotate(parameter, absl::InvalidArgumentError(
                                     "bytes of this and the parameters before exceed 64 bits"));
    }
  }
  return absl::OkStatus();
}

// Whether the shards' parameters are 0, .., 0, 1, .., first_new - 1.
bool IsPlanOfFirst(const Plan& plan, size_t first_new) {
  int previous = -1;
  for (const PlannedShard& shard : plan.shards) {
    if (shard.parameter != previous && shard.parameter != previous + 1) return false;
    previous = shard.parameter;
  }
  return static_cast<size_t>(previous + 1) == first_new;
}

}  // namespace

absl::StatusOr<Plan> MakePlan(absl::Span<const ParameterShape> parameters, int num_servers,
                              const PlannerOptions& options) {
  Plan plan;
  SHARDSTEP_RETURN_IF_ERROR(AppendToPlan(&plan, parameters, 0, num_servers, options));
  return plan;
}

absl::Status AppendToPlan(Plan* plan, absl::Span<const ParameterShape> parameters, size_t first_new,
                          int num_servers, const PlannerOptions& options) {
  if (num_servers < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("number of servers is ", num_servers, ", expected at least 1"));
  }
  if (first_new > parameters.size() || !IsPlanOfFirst(*plan, first_new)) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan is not one of the first ", first_new, " parameters"));
  }
  SHARDSTEP_RETURN_IF_ERROR(ValidateParameters(parameters, first_new));

  std::vector<int64_t> server_bytes(num_servers, 0);
  const auto count_bytes = [&](const PlannedShard& shard) {
    server_bytes[shard.metadata.placement.server_rank] +=
        NumBytes(shard.metadata.sizes, MasterDType(parameters[shard.parameter].dtype)).value_or(0);
  };
  for (const PlannedShard& shard : plan->shards) {
    SHARDSTEP_RETURN_IF_ERROR(CheckPlacements({&shard.metadata, 1}, num_servers));
    count_bytes(shard);
  }

  std::vector<PlannedShard> added;
  for (size_t i = first_new; i < parameters.size(); ++i) {
    const ParameterShape& parameter = parameters[i];
    const int64_t bytes = NumBytes(parameter.sizes, MasterDType(parameter.dtype)).value_or(0);
    absl::StatusOr<std::vector<ShardMetadata>> shards =
        MakeShards(parameter.spec.has_value() ? *parameter.spec
                                              : ChooseSpec(parameter, bytes, server_bytes, options),
                   parameter.sizes);
    if (!shards.ok()) return Annotate(parameter, shards.status());
    const absl::Status placed = CheckPlacements(*shards, num_servers);
    if (!placed.ok()) return Annotate(parameter, placed);
    if (plan->shards.size() + added.size() + shards->size() > kMaxPlannedShards) {
      return Annotate(parameter,
                      absl::InvalidArgumentError(absl::StrCat(
                          "optimizer has too many shards, expected at most ", kMaxPlannedShards)));
    }
    for (ShardMetadata& shard : *shards) {
      added.push_back({static_cast<int>(i), std::move(shard)});
      count_bytes(added.back());
    }
  }
  plan->shards.insert(plan->shards.end(), std::make_move_iterator(added.begin()),
                      std::make_move_iterator(added.end()));
  plan->plan_id = PlanId(parameters, plan->shards);
  return absl::OkStatus();
}

}  // namespace shardstep
