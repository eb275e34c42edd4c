// The model of the tests that kill: a ledger, and tensors that AdamW trains. A gradient is a
// function of trainer and version alone, so that whatever happened to a run, what it must have come
// to is known.
//
// The ledger has a row on every server and a slot per trainer: each step adds exactly 1 to slot c
// for trainer c's one contribution to it. Slot < version: a contribution was lost; above:
// duplicated; rows that differ: the step is torn. (AdamW with betas 0 and an eps that swallows the
// root is SGD: param -= lr * gradient / eps. So is LARS without momentum and weight decay, which
// takes the place of AdamW in a coupled model: its steps need sums over all servers.)
#ifndef SHARDSTEP_TESTS_FAULTS_LEDGER_MODEL_H_
#define SHARDSTEP_TESTS_FAULTS_LEDGER_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "shardstep/client/named_tensor.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {

inline constexpr char kLedgerOptimizer[] = "ledger";
inline constexpr char kLedger[] = "ledger";
inline constexpr double kLearningRate = 1e-3;
inline constexpr double kWeightDecay = 0.01;
inline constexpr double kMomentum = 0.9;

// The tensors with the values that they begin with; the ledger comes last. Over three servers.
Floats LedgerModel(int trainers);
// The constructor's arguments: the ledger is a group of its own.
std::vector<ParameterGroup> LedgerGroups(const Floats& model, bool coupled);
OptimizerOptions LedgerOptions(bool coupled);

// The gradients of the step that makes `version` + 1.
void FillGradients(int trainers, int trainer, uint64_t version, Floats* gradients);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_FAULTS_LEDGER_MODEL_H_
