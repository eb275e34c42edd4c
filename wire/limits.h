// The limits and times of the wire, for both of its ends. Knows no gRPC: transport.h sets them on
// gRPC's objects.
#ifndef SHARDSTEP_WIRE_LIMITS_H_
#define SHARDSTEP_WIRE_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace shardstep {

// Frames. Senders aim at the default payload; a receiver refuses what is above the maxima. The
// header's limit bounds what a small message can make a receiver allocate; the touched bitmap of
// kMaxParameters takes half of it.
inline constexpr size_t kDefaultFramePayloadBytes = 512 << 10;
inline constexpr size_t kMaxFramePayloadBytes = 1 << 20;
inline constexpr size_t kMaxFrameHeaderBytes = 256 << 10;

// Definitions and plans travel in pages, since no message may be larger than kMaxMessageBytes.
inline constexpr size_t kMaxPageBytes = 1 << 20;
inline constexpr uint32_t kMaxPages = 4096;
inline constexpr size_t kMaxPagedBytes = 256 << 20;

inline constexpr size_t kMaxMessageBytes = 4 << 20;
// A message that another follows at once waits for it in the transport, unless it is larger: then
// it has nothing to gain.
inline constexpr size_t kSmallMessageBytes = 16 << 10;
// Of a request's metadata, at a server.
inline constexpr size_t kMaxRequestMetadataBytes = 8 << 10;
// Of a reply's metadata, at a client: a status's details may hold a trainer state, in base64.
inline constexpr size_t kMaxReplyMetadataBytes = 192 << 10;
inline constexpr size_t kMaxErrorMessageBytes = 4 << 10;
inline constexpr size_t kMaxErrorDetailBytes = 96 << 10;
inline constexpr size_t kMaxTrainerStateBytes = 64 << 10;

// Calls that one connection may have open; a client's further calls wait for one to end.
inline constexpr int kMaxConcurrentStreams = 256;

// While a Steps stream has so many calls open no more is read from it; and so many may one message
// of it bring.
inline constexpr int kMaxOpenSteps = 256;

// A connection on which nothing was received for kKeepaliveTime is probed, and closed when the
// probe is not answered within kKeepaliveTimeout. Servers permit probes kMinProbeInterval apart;
// faster ones end the connection.
inline constexpr absl::Duration kKeepaliveTime = absl::Seconds(10);
inline constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(5);
inline constexpr absl::Duration kMinProbeInterval = absl::Seconds(5);
// For the handshake of a new connection, at a server.
inline constexpr absl::Duration kHandshakeTimeout = absl::Seconds(3);
// Between a client's attempts to connect, growing from the first to the second; and for one
// attempt.
inline constexpr absl::Duration kFirstReconnectDelay = absl::Milliseconds(50);
inline constexpr absl::Duration kMaxReconnectDelay = absl::Seconds(1);
inline constexpr absl::Duration kConnectTimeout = absl::Seconds(5);

// Of a call (deadline.h checks it); long waits are chains of calls.
inline constexpr absl::Duration kMaxDeadline = absl::Minutes(10);
// Of sessions and snapshots. Clients renew every third of it.
inline constexpr absl::Duration kDefaultLease = absl::Seconds(30);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_LIMITS_H_
