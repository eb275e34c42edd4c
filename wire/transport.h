// Sets limits.h on gRPC's objects, the same for every server and every channel of ours. What is not
// set here is left to gRPC on purpose: above all its window sizes, which it finds by itself.
#ifndef SHARDSTEP_WIRE_TRANSPORT_H_
#define SHARDSTEP_WIRE_TRANSPORT_H_

#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstddef>

namespace shardstep {

// Message sizes, keepalive, handshake timeout, concurrent streams; no compression but identity (a
// message that was compressed gets UNIMPLEMENTED); a port that another process listens on is
// refused instead of shared; what gRPC buffers for all connections is bounded by `transport_bytes`.
void ConfigureServer(grpc::ServerBuilder* builder, size_t transport_bytes);

// Message sizes, keepalive, reconnection, no compression, no HTTP proxy, no retries by gRPC
// (repeating a call is the protocol's business). Every channel made with these arguments has a
// connection of its own.
grpc::ChannelArguments MakeChannelArguments();

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_TRANSPORT_H_
