#include "shardstep/client/state_selection.h"

#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/nearest_name.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {
namespace {

// A request of so many names of kMaxNameBytes is below kMaxMessageBytes.
constexpr size_t kParametersPerRequest = 4096;

absl::StatusOr<uint32_t> FindState(const OptimizerIndex& index, const std::string& name) {
  const std::vector<StateSpec>& states = index.description().states;
  NearestNameSearch search(name);
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i].name == name) return static_cast<uint32_t>(i + 1);
    search.Consider(states[i].name);
  }
  std::string message =
      absl::StrCat("state \"", name, "\": not in optimizer \"", index.name(), "\"");
  if (!search.nearest().empty()) {
    absl::StrAppend(&message, "; did you mean \"", search.nearest(), "\"");
  }
  return absl::NotFoundError(message);
}

// `sizes`: of what the part names.
absl::Status CheckRegion(const TensorPart& part, const Region& region, const Shape& sizes) {
  bool fits = region.offsets.size() == sizes.size() && region.sizes.size() == sizes.size();
  for (size_t i = 0; fits && i < region.sizes.size(); ++i) {
    fits = region.offsets[i] >= 0 && region.sizes[i] >= 0 && region.offsets[i] <= sizes[i] &&
           region.sizes[i] <= sizes[i] - region.offsets[i];
  }
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("parameter \"", part.parameter, "\"",
                   part.state.empty() ? "" : absl::StrCat(", state \"", part.state, "\""),
                   ": block at ", ShapeToString(region.offsets), " of ",
                   ShapeToString(region.sizes), " does not fit its shape ", ShapeToString(sizes)));
}

void SetBlock(const Region& region, v1::TensorSelector* tensor) {
  for (int64_t offset : region.offsets) tensor->add_offsets(offset);
  for (int64_t size : region.sizes) tensor->add_sizes(size);
}

}  // namespace

absl::StatusOr<StateSelection> StateSelection::Make(std::shared_ptr<const OptimizerIndex> index,
                                                    const StateDictOptions& options) {
  StateSelection selection(std::move(index));
  selection.selector_.set_parameters(options.parameters);
  selection.selector_.set_state(options.state);
  if (options.parts.empty()) {
    if (!options.parameters && !options.state) {
      return absl::InvalidArgumentError("state_dict: neither parameters nor state are asked for");
    }
    for (const ParameterInfo& parameter : selection.index_->parameters()) {
      SHARDSTEP_RETURN_IF_ERROR(selection.Add({parameter.name, "", std::nullopt}, options));
    }
    return selection;
  }
  for (const TensorPart& part : options.parts) {
    SHARDSTEP_RETURN_IF_ERROR(selection.Add(part, options));
    v1::TensorSelector& tensor = *selection.selector_.add_tensors();
    tensor.set_parameter(part.parameter);
    tensor.set_state(part.state);
    if (part.region) SetBlock(*part.region, &tensor);
  }
  return selection;
}

absl::Status StateSelection::Add(const TensorPart& part, const StateDictOptions& options) {
  SHARDSTEP_ASSIGN_OR_RETURN(const int parameter, index_->Find(part.parameter));
  uint32_t named = 0;
  if (!part.state.empty()) {
    SHARDSTEP_ASSIGN_OR_RETURN(named, FindState(*index_, part.state));
  }
  const Shape sizes = index_->TensorSizes(parameter, named);
  const Region region = part.region.value_or(WholeRegion(sizes));
  SHARDSTEP_RETURN_IF_ERROR(CheckRegion(part, region, sizes));
  if (named != 0) return Want({parameter, named}, region);
  if (!options.parameters && !options.state) {
    return absl::InvalidArgumentError(
        absl::StrCat("state_dict: of parameter \"", part.parameter,
                     "\" neither its value nor state nor one state by name is asked for"));
  }
  if (options.parameters) SHARDSTEP_RETURN_IF_ERROR(Want({parameter, 0}, region));
  if (!options.state) return absl::OkStatus();
  for (uint32_t tensor = 1; tensor <= index_->description().states.size(); ++tensor) {
    SHARDSTEP_RETURN_IF_ERROR(Want({parameter, tensor}, index_->TensorPartOf(region, tensor)));
  }
  return absl::OkStatus();
}

absl::Status StateSelection::Want(Key key, const Region& region) {
  if (wanted_.emplace(key, region).second) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("parameter \"", index_->parameters()[key.first].name,
                   "\": a tensor stands in two parts of one state_dict"));
}

std::vector<std::pair<v1::Selector, std::vector<int>>> StateSelection::PresenceSelectors() const {
  std::vector<std::pair<v1::Selector, std::vector<int>>> selectors;
  int last = -1;
  for (const auto& [key, region] : wanted_) {
    if (key.second == 0 || key.first == last) continue;
    last = key.first;
    if (selectors.empty() || selectors.back().second.size() == kParametersPerRequest) {
      selectors.emplace_back();
      selectors.back().first.set_state(true);
    }
    const ParameterInfo& parameter = index_->parameters()[key.first];
    v1::TensorSelector& tensor = *selectors.back().first.add_tensors();
    tensor.set_parameter(parameter.name);
    // A tensor without elements is told of only where all of it is asked for.
    const Region first{Shape(parameter.sizes.size(), 0), Shape(parameter.sizes.size(), 1)};
    if (!IsEmpty(WholeRegion(parameter.sizes))) SetBlock(first, &tensor);
    selectors.back().second.push_back(key.first);
  }
  return selectors;
}

std::vector<std::pair<StateSelection::Key, StateDictEntry>> StateSelection::Entries(
    const std::map<Key, std::optional<double>>& present) const {
  std::vector<std::pair<Key, StateDictEntry>> entries;
  for (const auto& [key, region] : wanted_) {
    const ParameterInfo& parameter = index_->parameters()[key.first];
    StateDictEntry entry{parameter.name, "", index_->TensorDType(key.first, key.second), region,
                         std::nullopt};
    if (key.second != 0) {
      const auto found = present.find(key);
      if (found == present.end()) continue;
      const StateSpec& spec = index_->description().states[key.second - 1];
      entry.state = spec.name;
      entry.scalar = found->second;
      if (entry.scalar) {
        const bool exact = spec.dtype == DType::kFloat32 || spec.dtype == DType::kInt64;
        entry.dtype = exact ? spec.dtype : DType::kFloat64;
        entry.region = {};
      }
    }
    entries.emplace_back(key, std::move(entry));
  }
  return entries;
}

}  // namespace shardstep::internal
