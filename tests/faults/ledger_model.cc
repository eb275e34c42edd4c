#include "shardstep/tests/faults/ledger_model.h"

#include <cstddef>
#include <utility>

#include "absl/types/span.h"

namespace shardstep {
namespace {

constexpr int kServers = 3;
// One unit in the last place of it is above the root of any squared gradient of the ledger.
constexpr double kSwallowingEps = 1 << 30;

// A number in [-1, 1) that depends on all of its arguments, and on nothing else.
float Draw(uint64_t version, uint64_t trainer, uint64_t tensor, uint64_t element) {
  uint64_t x = ((version * 31 + trainer) * 1000003 + tensor) * 1000033 + element;
  x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9;
  return static_cast<float>(static_cast<int32_t>(x >> 40) - (1 << 23)) * 0x1p-23f;
}

}  // namespace

Floats LedgerModel(int trainers) {
  Floats model;
  model.Add("weight", {192, 256}, 0, Rows(kServers));
  model.Add("bias", {1000}, 0, Rows(kServers));
  model.Add("whole", {64}, 0, Whole{1});
  uint64_t tensor = 0;
  for (const NamedTensor& named : model.named()) {
    const absl::Span<float> values = model[named.name];
    for (size_t i = 0; i < values.size(); ++i) values[i] = Draw(0, 1000, tensor, i);
    ++tensor;
  }
  model.Add(kLedger, {2 * kServers, trainers}, 0, Rows(kServers));
  return model;
}

std::vector<ParameterGroup> LedgerGroups(const Floats& model, bool coupled) {
  ParameterGroup trained;
  ParameterGroup ledger;
  for (const NamedTensor& tensor : model.named()) {
    (tensor.name == kLedger ? ledger : trained).parameters.push_back(tensor);
  }
  ledger.options = {{"lr", kSwallowingEps},
                    {"betas", OptionValue::List{0.0, 0.0}},
                    {"eps", kSwallowingEps},
                    {"weight_decay", 0.0}};
  if (coupled) ledger.options = {{"lr", 1.0}, {"momentum", 0.0}, {"weight_decay", 0.0}};
  return {std::move(trained), std::move(ledger)};
}

OptimizerOptions LedgerOptions(bool coupled) {
  if (coupled) return LarsOptions(kLearningRate).momentum(kMomentum).weight_decay(kWeightDecay);
  return AdamWOptions(kLearningRate).weight_decay(kWeightDecay);
}

void FillGradients(int trainers, int trainer, uint64_t version, Floats* gradients) {
  uint64_t tensor = 0;
  for (const NamedTensor& named : gradients->named()) {
    const absl::Span<float> values = (*gradients)[named.name];
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = Draw(version, trainer, tensor, i);
      // The mean over all trainers of -n is -1.
      if (named.name == kLedger) {
        values[i] = static_cast<int>(i) % trainers == trainer ? -static_cast<float>(trainers) : 0;
      }
    }
    ++tensor;
  }
}

}  // namespace shardstep
