// ByteStream over gRPC: any streaming method, as raw messages, on the callback API.
#ifndef SHARDSTEP_CLIENT_GRPC_BYTE_STREAM_H_
#define SHARDSTEP_CLIENT_GRPC_BYTE_STREAM_H_

#include <grpcpp/channel.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "shardstep/client/byte_stream.h"

namespace shardstep::internal {

// Starts "/shardstep.v1.Shards/<...>" (`method`) on `channel`; no deadline: runs until either side
// ends it. `listener` must outlive the stream.
std::unique_ptr<ByteStream> StartGrpcByteStream(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    std::optional<std::chrono::system_clock::time_point> deadline, StreamListener* listener);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_GRPC_BYTE_STREAM_H_
