// The two forms of a textbook server.
//
// Services are thread-safe and refer to the store, which outlives them. Handlers of the synchronous
// one block while the client is slow; those of the other never do.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SERVICES_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SERVICES_H_

#include <grpcpp/impl/service_type.h>

#include <memory>

#include "shardstep/tests/bench/reference/textbook_store.h"

namespace shardstep {

std::unique_ptr<grpc::Service> MakeSyncTextbookService(TextbookStore* store);
std::unique_ptr<grpc::Service> MakeCallbackTextbookService(TextbookStore* store);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SERVICES_H_
