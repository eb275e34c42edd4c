// A network namespace of the benchmark's own, so that what is compared does not depend on how the
// host's network is set up: a host whose TCP is paced (BBR) moves a quarter less over loopback, raw
// sockets and gRPC alike.
#ifndef SHARDSTEP_TESTS_BENCH_OWN_NETWORK_H_
#define SHARDSTEP_TESTS_BENCH_OWN_NETWORK_H_

namespace shardstep {

// Moves this process, and all that it starts, into a network namespace with nothing but a loopback
// interface and with congestion control that paces nothing (Reno). Needs no privileges where user
// namespaces are allowed; where they are not it says so on standard error, and the process stays in
// the host's network. For main(), before the process has a second thread.
void EnterOwnNetwork();

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_OWN_NETWORK_H_
