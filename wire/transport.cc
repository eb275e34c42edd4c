#include "shardstep/wire/transport.h"

#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpcpp/resource_quota.h>

#include "absl/time/time.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

static_assert(kMinProbeInterval < kKeepaliveTime, "a server must permit what a client does");

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

// When its last object goes, gRPC shuts itself down, and that waits up to 10 s for a thread of its
// own that polls on for so long after a large write. One reference that is never given back keeps
// it from that.
void KeepInitialized() {
  static const bool once = (grpc_init(), true);
  static_cast<void>(once);
}

// What both ends set. Without permission "without calls", a probe on an idle connection would end
// it.
template <typename Set>
void SetKeepalive(Set set) {
  set(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(kKeepaliveTime));
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(kKeepaliveTimeout));
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
}

}  // namespace

void ConfigureServer(grpc::ServerBuilder* builder, size_t transport_bytes) {
  KeepInitialized();
  const auto set = [&](const char* name, int value) { builder->AddChannelArgument(name, value); };
  SetKeepalive(set);
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, Milliseconds(kMinProbeInterval));
  set(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(kHandshakeTimeout));
  set(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentStreams);
  set(GRPC_ARG_MAX_METADATA_SIZE, kMaxRequestMetadataBytes);
  set(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder->SetMaxSendMessageSize(kMaxMessageBytes);
  // gRPC unpacks a compressed message before it looks at its size.
  for (int algorithm = GRPC_COMPRESS_NONE + 1; algorithm < GRPC_COMPRESS_ALGORITHMS_COUNT;
       ++algorithm) {
    builder->SetCompressionAlgorithmSupportStatus(
        static_cast<grpc_compression_algorithm>(algorithm), false);
  }
  grpc::ResourceQuota quota("shardstep");
  quota.Resize(transport_bytes);
  builder->SetResourceQuota(quota);
}

grpc::ChannelArguments MakeChannelArguments() {
  KeepInitialized();
  grpc::ChannelArguments arguments;
  SetKeepalive([&](const char* name, int value) { arguments.SetInt(name, value); });
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, Milliseconds(kFirstReconnectDelay));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, Milliseconds(kMaxReconnectDelay));
  // In spite of its name, the time that one attempt to connect is given.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, Milliseconds(kConnectTimeout));
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, kMaxReplyMetadataBytes);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  return arguments;
}

}  // namespace shardstep
