#include "shardstep/tests/golden/golden_file.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

namespace shardstep {
namespace {

using Json = nlohmann::ordered_json;

std::string ReadFile(const std::string& name) {
  const std::string path = "tests/golden/data/" + name;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::cerr << "golden file \"" << path << "\": cannot be read\n";
    std::exit(1);
  }
  return std::string(std::istreambuf_iterator<char>(file), {});
}

OptionValue ToOption(const Json& json) {
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_null()) return OptionValue();
  if (json.is_object()) return std::strtod(json["float"].get<std::string>().c_str(), nullptr);
  OptionValue::List list;
  for (const Json& item : json) list.push_back(ToOption(item));
  return list;
}

std::set<int> StepsOf(const Json& json, const std::string& name) {
  return json.value(name, std::set<int>());
}

at::Tensor ToTensor(const Json& entry, const char* data) {
  const at::ScalarType dtype = entry["dtype"] == "F32" ? at::kFloat : at::kDouble;
  at::Tensor tensor =
      at::empty(entry["shape"].get<std::vector<int64_t>>(), at::TensorOptions().dtype(dtype));
  const int64_t begin = entry["data_offsets"][0];
  if (tensor.nbytes() > 0) std::memcpy(tensor.mutable_data_ptr(), data + begin, tensor.nbytes());
  return tensor;
}

}  // namespace

Json ReadGoldenJson(const std::string& name) { return Json::parse(ReadFile(name)); }

OptionMap ToOptions(const Json& json) {
  OptionMap options;
  for (const auto& [name, value] : json.items()) options.Set(name, ToOption(value));
  return options;
}

GoldenCase ReadGoldenCase(const std::string& name) {
  const std::string file = ReadFile(name + ".safetensors");
  uint64_t header_size;
  std::memcpy(&header_size, file.data(), sizeof(header_size));
  const Json header = Json::parse(file.substr(sizeof(header_size), header_size));
  const Json json = Json::parse(header["__metadata__"]["case"].get<std::string>());

  GoldenCase result;
  result.kind = json["kind"];
  result.defaults = ToOptions(json["defaults"]);
  for (const Json& group : json["groups"]) {
    result.groups.push_back({ToOptions(group["options"]), group["params"]});
  }
  for (Json group : json["param_groups"]) {
    const std::vector<std::string> params = group["params"];
    group.erase("params");
    result.param_groups.push_back({ToOptions(group), params});
  }
  result.steps = json["steps"];
  result.kept = json["kept"].get<std::set<int>>();
  result.kept.insert(0);
  for (const Json& change : json["changes"]) {
    result.changes.push_back({change["step"], change["group"], ToOptions(change["options"])});
  }
  result.added_at = json.value("added_at", 0);
  result.sample = json.value("sample", 0);
  const Json dtypes = json.value("dtypes", Json::object());
  for (const auto& [parameter, shape] : json["shapes"].items()) {
    result.parameters.push_back({parameter, shape, StepsOf(json["absent"], parameter),
                                 StepsOf(json["zero"], parameter), json["states"][parameter],
                                 dtypes.value(parameter, "")});
  }
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") continue;
    result.tensors[key] = ToTensor(entry, file.data() + sizeof(header_size) + header_size);
  }
  return result;
}

std::vector<double> Draw(uint64_t seed, int64_t count, at::ScalarType dtype) {
  const int bits = dtype == at::kFloat ? 24 : 53;
  const double half = std::ldexp(1.0, bits - 1);
  std::vector<double> values;
  uint64_t state = seed;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    values.push_back((static_cast<double>(state >> (64 - bits)) - half) / half);
  }
  return values;
}

at::Tensor DrawGradient(int step, size_t index, const std::vector<int64_t>& shape,
                        at::ScalarType dtype) {
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(at::kDouble));
  const std::vector<double> values = Draw(1000 * step + index, tensor.numel(), dtype);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<double>());
  return tensor.to(dtype);
}

}  // namespace shardstep
