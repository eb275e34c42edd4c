// LocalOptimizer against PyTorch: every bit of every parameter and state over 100 steps, whole and
// cut into shards in many ways. With --numerics=native the process keeps MKL's own branch, and
// the cuts are compared with the uncut run instead of with PyTorch's files.

#include <ATen/Version.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/numeric_fingerprint.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/golden/golden_file.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

bool portable = true;

constexpr int kSteps = 100;
const std::set<int>& KeptSteps() {
  static const auto* steps = new std::set<int>{1, 2, 10, 100};
  return *steps;
}

// PyTorch's bits need the fused multiply-add that its files were made with.
bool HasFma() { return at::get_cpu_capability() != "DEFAULT"; }

// --- Cutting tensors into contiguous pieces ---

using Pieces = std::vector<at::Tensor>;
using Cut = std::function<Pieces(const at::Tensor&)>;

Pieces Whole(const at::Tensor& tensor) { return {tensor.contiguous().clone()}; }

Pieces Chunk(const at::Tensor& tensor, int64_t dim, int64_t count) {
  if (dim >= tensor.dim()) return Whole(tensor);
  Pieces pieces;
  const int64_t size = tensor.size(dim);
  const int64_t step = std::max<int64_t>((size + count - 1) / count, 1);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = std::min(i * step, size);
    pieces.push_back(tensor.narrow(dim, begin, std::min(step, size - begin)).contiguous().clone());
  }
  return pieces;
}

// Flat pieces of lengths[0], lengths[1], ... elements, over and over.
Pieces Strips(const at::Tensor& tensor, const std::vector<int64_t>& lengths) {
  if (tensor.numel() == 0) return Whole(tensor);
  Pieces pieces;
  const at::Tensor flat = tensor.reshape(-1);
  for (int64_t begin = 0; begin < flat.numel();) {
    const int64_t length = std::min(lengths[pieces.size() % lengths.size()], flat.numel() - begin);
    pieces.push_back(flat.narrow(0, begin, length).clone());
    begin += length;
  }
  return pieces;
}

struct Setup {
  const char* name;
  Cut cut = Whole;
  int servers = 1;
  int threads = 1;
  bool held = false;  // a snapshot of every version is held while the next one is made
  int64_t block_elements = kBlockElements;
};

void PrintTo(const Setup& setup, std::ostream* os) { *os << setup.name; }

std::vector<Setup> Setups() {
  const Cut rows = [](const at::Tensor& t) { return Chunk(t, 0, 3); };
  const Cut thin_rows = [](const at::Tensor& t) { return Chunk(t, 0, 9); };
  const Cut columns = [](const at::Tensor& t) { return Chunk(t, 1, 2); };
  const Cut grid = [](const at::Tensor& t) {
    Pieces pieces;
    for (const at::Tensor& row : Chunk(t, 0, 2)) {
      for (const at::Tensor& block : Chunk(row, 1, 3)) pieces.push_back(block);
    }
    return pieces;
  };
  const Cut odd = [](const at::Tensor& t) { return Strips(t, {1, 3, 7, 11, 2, 17}); };
  const Cut elements = [](const at::Tensor& t) { return Strips(t, {1}); };
  return {{"Whole"},
          {"WholeHeld", Whole, 1, 1, true},
          {"WholeInBlocksOnTwoThreads", Whole, 1, 2, false, 5},
          {"RowsOnTwoServers", rows, 2},
          {"MoreServersThanRows", thin_rows, 9},
          {"ColumnsOnTwoThreads", columns, 1, 2},
          {"GridOnThreeServersHeld", grid, 3, 1, true},
          {"OddPiecesHeldOnTwoThreads", odd, 2, 2, true, 4},
          {"SingleElements", elements, 2}};
}

// --- Running ---

// What is compared: the pieces of every tensor, by "<step>/<parameter>/<value or state name>".
using Record = std::map<std::string, Pieces>;

// An optimizer whose shards are dealt round to several servers.
class Fleet {
 public:
  Fleet(const GoldenCase& golden, at::ScalarType dtype, const Setup& setup)
      : golden_(golden), dtype_(dtype), setup_(setup) {}

  void Create() {
    std::vector<std::string> names;
    std::vector<std::vector<ShardValue>> shards(setup_.servers);
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      names.push_back(golden_.parameters[i].name);
      const at::Tensor value = DrawGradient(0, i, golden_.parameters[i].shape, dtype_);
      size_t server = 0;
      for (at::Tensor& piece : setup_.cut(value)) {
        shards[server++ % shards.size()].push_back({i, std::move(piece)});
      }
    }
    for (std::vector<ShardValue>& local : shards) {
      ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer,
                           LocalOptimizer::Create(golden_.kind, golden_.param_groups, names,
                                                  std::move(local), setup_.block_elements));
      servers_.push_back(std::move(optimizer));
    }
  }

  void Step(int step) {
    std::vector<Pieces> gradients(servers_.size());
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      size_t server = 0;
      for (at::Tensor& piece : setup_.cut(Gradient(i, step))) {
        if (golden_.parameters[i].absent_steps.count(step) > 0) piece = at::Tensor();
        gradients[server++ % gradients.size()].push_back(std::move(piece));
      }
    }
    for (size_t i = 0; i < servers_.size(); ++i) StepServer(std::move(gradients[i]), servers_[i]);
  }

  void AddTo(Record* record, int step) const {
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      const std::string prefix = absl::StrCat(step, "/", golden_.parameters[i].name, "/");
      // Pieces were dealt in turn: collect them in the same order.
      std::vector<std::vector<const LocalState::Shard*>> local(servers_.size());
      for (size_t s = 0; s < servers_.size(); ++s) {
        for (const LocalState::Shard& shard : servers_[s].state().shards) {
          if (shard.parameter == i) local[s].push_back(&shard);
        }
        for (const ScalarState& scalar : servers_[s].state().scalars[i]) {
          ASSERT_EQ(scalar.dtype, DType::kFloat32);
          (*record)[prefix + scalar.name].push_back(at::empty({}).fill_(scalar.value));
        }
      }
      for (size_t turn = 0; turn < local[0].size(); ++turn) {
        for (size_t s = 0; s < local.size() && turn < local[s].size(); ++s) {
          (*record)[prefix + "value"].push_back(local[s][turn]->value.clone());
          for (const TensorState& state : local[s][turn]->states) {
            (*record)[prefix + state.name].push_back(state.tensor.clone());
          }
        }
      }
    }
  }

 private:
  at::Tensor Gradient(size_t parameter, int step) const {
    const GoldenParameter& golden = golden_.parameters[parameter];
    if (golden.zero_steps.count(step) > 0) {
      return at::zeros(golden.shape, at::TensorOptions().dtype(dtype_));
    }
    return DrawGradient(step, parameter, golden.shape, dtype_);
  }

  void StepServer(Pieces gradients, LocalOptimizer& server) const {
    LocalState snapshot;
    if (setup_.held) snapshot = server.state();
    const LocalState before = Clone(snapshot);
    ASSERT_OK(server.BeginStep(std::move(gradients), std::nullopt));
    const auto run = [&](size_t first) {
      for (size_t i = first; i < server.num_blocks(); i += setup_.threads) server.RunBlock(i);
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < setup_.threads; ++thread) others.emplace_back(run, thread);
    run(0);
    for (std::thread& other : others) other.join();
    ASSERT_OK(server.FinishStep());
    for (size_t i = 0; i < before.shards.size(); ++i) {
      EXPECT_TRUE(before.shards[i].value.equal(snapshot.shards[i].value))
          << "held value, shard " << i;
      for (size_t j = 0; j < before.shards[i].states.size(); ++j) {
        EXPECT_TRUE(before.shards[i].states[j].tensor.equal(snapshot.shards[i].states[j].tensor))
            << "held " << before.shards[i].states[j].name << ", shard " << i;
      }
    }
  }

  static LocalState Clone(LocalState state) {
    for (LocalState::Shard& shard : state.shards) {
      shard.value = shard.value.clone();
      for (TensorState& tensor : shard.states) tensor.tensor = tensor.tensor.clone();
    }
    return state;
  }

  const GoldenCase& golden_;
  const at::ScalarType dtype_;
  const Setup& setup_;
  std::vector<LocalOptimizer> servers_;
};

void RunCase(const GoldenCase& golden, at::ScalarType dtype, const Setup& setup, Record* record) {
  Fleet fleet(golden, dtype, setup);
  ASSERT_NO_FATAL_FAILURE(fleet.Create());
  for (int step = 1; step <= kSteps; ++step) {
    ASSERT_NO_FATAL_FAILURE(fleet.Step(step));
    if (KeptSteps().count(step) == 0) continue;
    ASSERT_NO_FATAL_FAILURE(fleet.AddTo(record, step));
  }
}

// PyTorch's tensors, or the uncut run's, cut as `setup` says. A scalar stands once for every server
// that has shards of its parameter.
void MakeExpected(const GoldenCase& golden, at::ScalarType dtype, const Setup& setup,
                  Record* record) {
  std::map<std::string, at::Tensor> tensors;
  if (portable) {
    const std::string prefix = dtype == at::kFloat ? "float32/" : "float64/";
    for (const auto& [key, tensor] : golden.tensors) {
      if (key.rfind(prefix, 0) == 0) tensors[key.substr(prefix.size())] = tensor;
    }
  } else {
    const Setup uncut = {"Whole"};
    Record whole;
    ASSERT_NO_FATAL_FAILURE(RunCase(golden, dtype, uncut, &whole));
    for (const auto& [key, pieces] : whole) tensors[key] = pieces[0];
  }
  for (const auto& [key, tensor] : tensors) {
    if (key.rfind("0/", 0) == 0) continue;
    const size_t slash = key.find('/');
    const std::string name = key.substr(slash + 1, key.rfind('/') - slash - 1);
    const std::string entry = key.substr(key.rfind('/') + 1);
    if (entry != "step") {
      (*record)[key] = setup.cut(tensor);
      continue;
    }
    const size_t pieces =
        setup.cut(tensors.at(absl::StrCat(key.substr(0, slash), "/", name, "/value"))).size();
    (*record)[key] = Pieces(std::min<size_t>(pieces, setup.servers), tensor);
  }
}

// --- Comparing ---

// Bit for bit; without FMA up to a small part of the tensor's largest element.
void ExpectSame(const Pieces& actual, const Pieces& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double difference = 0, largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const at::Tensor &a = actual[i], &b = expected[i];
    ASSERT_EQ(a.scalar_type(), b.scalar_type()) << what;
    ASSERT_EQ(a.sizes(), b.sizes()) << what;
    if (a.numel() == 0) continue;
    if (HasFma() || !portable) {
      ASSERT_EQ(std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()), 0)
          << what << ", piece " << i << "\n"
          << a << "\nexpected\n"
          << b;
    }
    difference = std::max(difference, a.sub(b).abs().max().item().toDouble());
    largest = std::max(largest, b.abs().max().item().toDouble());
  }
  const bool is_float = expected[0].scalar_type() == at::kFloat;
  EXPECT_LE(difference, std::ldexp(largest, is_float ? -18 : -47)) << what;
}

class GoldenTest : public testing::TestWithParam<std::tuple<std::string, at::ScalarType, Setup>> {};

TEST_P(GoldenTest, EveryBitOf100Steps) {
  const auto& [name, dtype, setup] = GetParam();
  const GoldenCase golden = ReadGoldenCase(name);
  Record expected, actual;
  ASSERT_NO_FATAL_FAILURE(MakeExpected(golden, dtype, setup, &expected));
  ASSERT_NO_FATAL_FAILURE(RunCase(golden, dtype, setup, &actual));
  std::vector<std::string> actual_keys, expected_keys;
  for (const auto& [key, pieces] : actual) actual_keys.push_back(key);
  for (const auto& [key, pieces] : expected) expected_keys.push_back(key);
  ASSERT_THAT(actual_keys, testing::ElementsAreArray(expected_keys));
  for (const auto& [key, pieces] : expected) {
    ASSERT_NO_FATAL_FAILURE(ExpectSame(actual[key], pieces, key));
  }
}

const std::vector<std::string>& Cases() {
  static const auto* cases = new std::vector<std::string>{
      "sgd",          "sgd_momentum", "sgd_dampening",     "sgd_nesterov", "sgd_weight_decay",
      "sgd_maximize", "adam",         "adam_weight_decay", "adam_amsgrad", "adam_maximize",
      "adamw",        "adamw_amsgrad"};
  return *cases;
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         testing::Combine(testing::ValuesIn(Cases()),
                                          testing::Values(at::kFloat, at::kDouble),
                                          testing::ValuesIn(Setups())),
                         [](const testing::TestParamInfo<GoldenTest::ParamType>& info) {
                           return absl::StrCat(std::get<0>(info.param), "_",
                                               c10::toString(std::get<1>(info.param)), "_",
                                               std::get<2>(info.param).name);
                         });

class GoldenGroupsTest : public testing::TestWithParam<std::string> {};

// PyTorch's param_groups, every key in its order.
TEST_P(GoldenGroupsTest, AreCompletedAsByPyTorch) {
  const GoldenCase golden = ReadGoldenCase(GetParam());
  ASSERT_OK_AND_ASSIGN(const OptionMap defaults, CompleteOptions(golden.kind, golden.defaults));
  ASSERT_EQ(golden.groups.size(), golden.param_groups.size());
  for (size_t i = 0; i < golden.groups.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const ParamGroup group,
                         CompleteGroup(golden.kind, defaults, golden.groups[i]));
    std::vector<std::string> actual, expected;
    for (const auto& [name, value] : group.options) {
      actual.push_back(name + "=" + value.ToString());
    }
    for (const auto& [name, value] : golden.param_groups[i].options) {
      expected.push_back(name + "=" + value.ToString());
    }
    EXPECT_EQ(actual, expected);
    EXPECT_EQ(group.params, golden.param_groups[i].params);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenGroupsTest, testing::ValuesIn(Cases()));

TEST(GoldenFingerprintTest, IsThatOfTheFilesIfPortable) {
  ASSERT_OK_AND_ASSIGN(const uint32_t fingerprint, NumericFingerprint());
  const uint32_t golden = ReadGoldenJson("fingerprint.json")["fingerprint"];
  if (!HasFma()) {
    EXPECT_NE(fingerprint, golden);
  } else if (portable) {
    EXPECT_EQ(fingerprint, golden);
  }
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::portable = argc < 2 || absl::string_view(argv[1]) != "--numerics=native";
  if (shardstep::portable) shardstep::UsePortableNumerics();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
