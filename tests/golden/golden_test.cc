// LocalOptimizer against PyTorch: every bit of every parameter and state over 20 or 100 steps,
// whole and cut into shards in many ways, and what constructors say to options. With
// --numerics=native the process keeps MKL's own branch, and the cuts are compared with the uncut
// run instead of with PyTorch's files.

#include <ATen/Version.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/numeric_fingerprint.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/golden/golden_file.h"
#include "shardstep/tests/golden/setups.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

bool portable = true;

// PyTorch's bits need the fused multiply-add that its files were made with.
bool HasFma() { return at::get_cpu_capability() != "DEFAULT"; }

// --- Running ---

// What is compared: the pieces of every tensor, by "<step>/<parameter>/<value or state name>".
using Record = std::map<std::string, Pieces>;

// An optimizer whose shards are dealt round to several servers.
class Fleet {
 public:
  Fleet(const GoldenCase& golden, at::ScalarType dtype, const Setup& setup)
      : golden_(golden),
        dtype_(dtype),
        setup_(setup),
        cut_(setup.cut),
        num_servers_(setup.servers) {}

  void Create() {
    std::vector<at::Tensor> values;
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      values.push_back(DrawGradient(0, i, golden_.parameters[i].shape, dtype_));
    }
    CreateFrom(values, golden_.param_groups);
  }

  // Moves everything to other servers.
  void Reshard() {
    Record record;
    ASSERT_NO_FATAL_FAILURE(AddTo(&record, 0));
    const auto whole = [&](size_t parameter, const std::string& name) {
      const GoldenParameter& golden = golden_.parameters[parameter];
      Pieces flat;
      for (const at::Tensor& piece : record.at(absl::StrCat("0/", golden.name, "/", name))) {
        flat.push_back(piece.view(-1));
      }
      return at::cat(flat).view(golden.shape);
    };
    const LocalState old = servers_[0].state();  // whoever has a shard at all has one on it
    const std::vector<ParamGroup> groups = servers_[0].groups();
    std::vector<at::Tensor> values;
    for (size_t i = 0; i < golden_.parameters.size(); ++i) values.push_back(whole(i, "value"));
    cut_ = setup_.later_cut;
    servers_.clear();
    num_servers_ = setup_.later_servers;
    ASSERT_NO_FATAL_FAILURE(CreateFrom(values, groups));

    std::vector<std::vector<std::vector<TensorState>>> states(servers_.size());
    std::vector<std::vector<std::vector<ScalarState>>> scalars(servers_.size());
    for (size_t s = 0; s < servers_.size(); ++s) {
      states[s].resize(servers_[s].state().shards.size());
      scalars[s].resize(golden_.parameters.size());
      for (const LocalState::Shard& shard : servers_[s].state().shards) {
        scalars[s][shard.parameter] = old.scalars[shard.parameter];
      }
    }
    std::vector<size_t> next(servers_.size());
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      const auto shard = std::find_if(old.shards.begin(), old.shards.end(),
                                      [&](const auto& other) { return other.parameter == i; });
      const size_t pieces = cut_(values[i]).size();
      for (const TensorState& state : shard->states) {
        size_t piece = 0;
        for (at::Tensor& part : cut_(whole(i, state.name))) {
          const size_t server = piece % servers_.size();
          states[server][next[server] + piece++ / servers_.size()].push_back(
              {state.name, std::move(part)});
        }
      }
      for (size_t piece = 0; piece < pieces; ++piece) ++next[piece % servers_.size()];
    }
    for (size_t s = 0; s < servers_.size(); ++s) {
      ASSERT_OK(servers_[s].SetState(std::move(states[s]), std::move(scalars[s])));
    }
  }

  void Step(int step) {
    if (setup_.later_cut && step == golden_.steps / 2 + 1) {
      ASSERT_NO_FATAL_FAILURE(Reshard());
    }
    for (const GoldenChange& change : golden_.changes) {
      if (change.step != step) continue;
      for (LocalOptimizer& server : servers_) {
        for (const auto& [name, value] : change.options) {
          ASSERT_OK(server.SetOption(change.group, name, value));
        }
      }
    }
    std::vector<Pieces> gradients(servers_.size());
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      size_t server = 0;
      for (at::Tensor& piece : cut_(Gradient(i, step))) {
        if (golden_.parameters[i].absent_steps.count(step) > 0) piece = at::Tensor();
        gradients[server++ % gradients.size()].push_back(std::move(piece));
      }
    }
    for (size_t i = 0; i < servers_.size(); ++i) StepServer(gradients[i], servers_[i]);
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
  void CreateFrom(const std::vector<at::Tensor>& values, const std::vector<ParamGroup>& groups) {
    std::vector<std::string> names;
    std::vector<std::vector<ShardValue>> shards(num_servers_);
    for (size_t i = 0; i < values.size(); ++i) {
      names.push_back(golden_.parameters[i].name);
      size_t server = 0;
      for (at::Tensor& piece : cut_(values[i])) {
        shards[server++ % shards.size()].push_back({i, std::move(piece)});
      }
    }
    for (std::vector<ShardValue>& local : shards) {
      ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer,
                           LocalOptimizer::Create(golden_.kind, groups, names, std::move(local),
                                                  setup_.block_elements));
      servers_.push_back(std::move(optimizer));
    }
  }

  at::Tensor Gradient(size_t parameter, int step) const {
    const GoldenParameter& golden = golden_.parameters[parameter];
    if (golden.zero_steps.count(step) > 0) {
      return at::zeros(golden.shape, at::TensorOptions().dtype(dtype_));
    }
    return DrawGradient(step, parameter, golden.shape, dtype_);
  }

  void StepServer(const Pieces& gradients, LocalOptimizer& server) const {
    LocalState snapshot;
    if (setup_.held) snapshot = server.state();
    const LocalState before = Clone(snapshot);
    ASSERT_OK(server.BeginStep({gradients.begin(), gradients.end()}, std::nullopt));
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
  Cut cut_;
  int num_servers_;
  std::vector<LocalOptimizer> servers_;
};

void RunCase(const GoldenCase& golden, at::ScalarType dtype, const Setup& setup, Record* record) {
  Fleet fleet(golden, dtype, setup);
  ASSERT_NO_FATAL_FAILURE(fleet.Create());
  for (int step = 0; step <= golden.steps; ++step) {
    if (step > 0) {
      ASSERT_NO_FATAL_FAILURE(fleet.Step(step));
    }
    if (golden.kept.count(step) == 0) continue;
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
    Setup uncut;
    uncut.name = "Whole";
    Record whole;
    ASSERT_NO_FATAL_FAILURE(RunCase(golden, dtype, uncut, &whole));
    for (const auto& [key, pieces] : whole) tensors[key] = pieces[0];
  }
  ASSERT_OK_AND_ASSIGN(const auto optimizer, MakeOptimizer(golden.kind));
  std::set<std::string> scalars;
  for (const StateSpec& state : optimizer->AllStates()) {
    if (state.kind == StateSpec::Kind::kScalar) scalars.insert(state.name);
  }
  for (const auto& [key, tensor] : tensors) {
    const size_t slash = key.find('/');
    const int step = std::stoi(key.substr(0, slash));
    const Cut& cut = setup.CutAfter(step, golden.steps);
    const std::string name = key.substr(slash + 1, key.rfind('/') - slash - 1);
    const std::string entry = key.substr(key.rfind('/') + 1);
    if (scalars.count(entry) == 0) {
      (*record)[key] = cut(tensor);
      continue;
    }
    const size_t pieces = cut(tensors.at(absl::StrCat(step, "/", name, "/value"))).size();
    const int servers = setup.ServersAfter(step, golden.steps);
    (*record)[key] = Pieces(std::min<size_t>(pieces, servers), tensor);
  }
}

// --- Comparing ---

double LargestOf(const Pieces& pieces) {
  double largest = 0;
  for (const at::Tensor& piece : pieces) {
    if (piece.numel() > 0) largest = std::max(largest, piece.abs().max().item().toDouble());
  }
  return largest;
}

// Bit for bit; without FMA up to a small part of `largest`.
void ExpectSame(const Pieces& actual, const Pieces& expected, double largest,
                const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double difference = 0;
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
    difference = std::max(difference, LargestOf({a.sub(b)}));
  }
  const bool is_float = expected[0].scalar_type() == at::kFloat;
  EXPECT_LE(difference, std::ldexp(largest, is_float ? -18 : -47)) << what;
}

class GoldenTest : public testing::TestWithParam<std::tuple<std::string, at::ScalarType, Setup>> {};

TEST_P(GoldenTest, EveryBitOfEveryStep) {
  const auto& [name, dtype, setup] = GetParam();
  const GoldenCase golden = ReadGoldenCase(name);
  Record expected, actual;
  ASSERT_NO_FATAL_FAILURE(MakeExpected(golden, dtype, setup, &expected));
  ASSERT_NO_FATAL_FAILURE(RunCase(golden, dtype, setup, &actual));
  std::vector<std::string> actual_keys, expected_keys;
  for (const auto& [key, pieces] : actual) actual_keys.push_back(key);
  for (const auto& [key, pieces] : expected) expected_keys.push_back(key);
  ASSERT_THAT(actual_keys, testing::ElementsAreArray(expected_keys));
  // A value may pass close to zero: what counts is how large its tensor is in any step.
  std::map<std::string, double> largest;
  for (const auto& [key, pieces] : expected) {
    double& of_tensor = largest[key.substr(key.find('/'))];
    of_tensor = std::max(of_tensor, LargestOf(pieces));
  }
  for (const auto& [key, pieces] : expected) {
    ASSERT_NO_FATAL_FAILURE(
        ExpectSame(actual[key], pieces, largest[key.substr(key.find('/'))], key));
  }
}

std::vector<std::string> Cases() { return ReadGoldenJson("cases.json"); }

// "optim_db/adam_1": no slash in a test's name.
std::string TestName(const std::string& name) { return absl::StrReplaceAll(name, {{"/", "_"}}); }

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         testing::Combine(testing::ValuesIn(Cases()),
                                          testing::Values(at::kFloat, at::kDouble),
                                          testing::ValuesIn(Setups())),
                         [](const testing::TestParamInfo<GoldenTest::ParamType>& info) {
                           return absl::StrCat(TestName(std::get<0>(info.param)), "_",
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

TEST_P(GoldenGroupsTest, HavePyTorchsStatesInItsOrder) {
  const GoldenCase golden = ReadGoldenCase(GetParam());
  ASSERT_OK_AND_ASSIGN(const auto optimizer, MakeOptimizer(golden.kind));
  for (const GoldenParameter& parameter : golden.parameters) {
    for (const ParamGroup& group : golden.param_groups) {
      if (std::count(group.params.begin(), group.params.end(), parameter.name) == 0) continue;
      std::vector<std::string> names;
      for (const StateSpec& state : optimizer->States(group.options)) names.push_back(state.name);
      EXPECT_EQ(names, parameter.states) << parameter.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenGroupsTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return TestName(info.param); });

TEST(GoldenOptionsTest, EveryConstructorSaysTheSame) {
  std::set<std::string> kinds;
  for (const auto& line : ReadGoldenJson("options.json")) {
    const std::string kind = line["kind"];
    kinds.insert(kind);
    const absl::Status status = CompleteOptions(kind, ToOptions(line["options"])).status();
    const auto& error = line["error"];
    EXPECT_EQ(status.message(), error.is_null() ? "" : error.get<std::string>())
        << kind << " " << line["options"];
  }
  // Not PyTorch's.
  kinds.insert({"LAMB", "LARS", "RowWiseAdagrad"});
  EXPECT_THAT(kinds, testing::UnorderedElementsAreArray(KnownOptimizers()));
}

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
