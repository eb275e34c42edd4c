// What a simulated server does with the tensor streams that reach it: pushes, writes and reads, as
// server/rpc does on a real one.
#ifndef SHARDSTEP_TESTS_SIMULATION_SERVER_STREAMS_H_
#define SHARDSTEP_TESTS_SIMULATION_SERVER_STREAMS_H_

#include <memory>

#include "shardstep/server/node.h"
#include "shardstep/tests/simulation/sim_stream.h"

namespace shardstep {

// Each is the server's end of a stream. `node` must live as long as the stream has that end.
//
// Frames go up; a v1.PushAck for each push comes down.
SimStream::End ServePushes(Node* node, const std::shared_ptr<SimStream>& stream);
// Frames go up; one v1.RichStatus comes down.
SimStream::End ServeWrite(Node* node, const std::shared_ptr<SimStream>& stream);
// A v1.ReadStateRequest goes up; its frames come down.
SimStream::End ServeRead(Node* node, const std::shared_ptr<SimStream>& stream);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SERVER_STREAMS_H_
