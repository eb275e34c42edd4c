// What a run of the ledger model must have come to: the same steps in one process, in torch.optim's
// AdamW, or in LARS, written out in ATen's operations.
#ifndef SHARDSTEP_TESTS_FAULTS_REFERENCE_RUN_H_
#define SHARDSTEP_TESTS_FAULTS_REFERENCE_RUN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace shardstep {

// The parameters after `version` synchronous steps of so many trainers, without the ledger.
std::map<std::string, std::vector<float>> ReferenceRun(int trainers, uint64_t version,
                                                       bool coupled);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_FAULTS_REFERENCE_RUN_H_
