#include "shardstep/tests/bench/reference/raw_tcp_client.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// Larger calls are slower, smaller ones too.
constexpr size_t kReceiveBytes = 256 << 10;

}  // namespace

absl::StatusOr<TcpSocket> OpenRawTcp(int port, RawDirection direction) {
  SHARDSTEP_ASSIGN_OR_RETURN(TcpSocket socket, TcpSocket::Connect(port, kTransferPatience));
  SHARDSTEP_RETURN_IF_ERROR(socket.Send(&direction, sizeof(direction)));
  return socket;
}

absl::Status RawPusher::Run(Rounds* rounds) {
  for (int64_t round = 0;; ++round) {
    if (rounds->lockstep()) SHARDSTEP_RETURN_IF_ERROR(AwaitAcks(sent_));
    SHARDSTEP_ASSIGN_OR_RETURN(const bool more, rounds->Begin(round));
    if (!more) return AwaitAcks(sent_);
    for (const int tensor : stream_.tensors) {
      SHARDSTEP_RETURN_IF_ERROR(AwaitAcks(sent_ + 1 - stream_.window));
      SHARDSTEP_RETURN_IF_ERROR(Send(tensor));
    }
  }
}

absl::Status RawPusher::Check(int64_t rounds) const {
  const auto tensors = static_cast<int64_t>(stream_.tensors.size()) * rounds;
  if (acked_.tensors == tensors && acked_.bytes == tensors * stream_.bytes) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat("expected the server to have received ", tensors,
                                          " tensors of ", stream_.bytes, " bytes, got ",
                                          acked_.tensors, " in ", acked_.bytes, " bytes"));
}

absl::Status RawPusher::Send(int tensor) {
  RawHeader header = stream_.Header(tensor);
  std::array<iovec, 2> parts = {
      {{&header, sizeof(header)},
       {(*stream_.values)[tensor].data(), static_cast<size_t>(stream_.bytes)}}};
  ++sent_;
  return stream_.socket.Send(parts.data(), parts.size());
}

absl::Status RawPusher::AwaitAcks(int64_t tensors) {
  auto* const buffer = reinterpret_cast<char*>(acks_.data());
  while (acked_.tensors < tensors) {
    SHARDSTEP_ASSIGN_OR_RETURN(const size_t received,
                               stream_.socket.Receive(buffer + kept_, sizeof(acks_) - kept_));
    if (received == 0) return absl::UnavailableError("the server has ended");
    const size_t bytes = kept_ + received;
    const size_t count = bytes / sizeof(RawAck);
    // The last one includes the others.
    if (count > 0) acked_ = acks_[count - 1];
    kept_ = bytes % sizeof(RawAck);
    std::memmove(buffer, buffer + bytes - kept_, kept_);
  }
  return absl::OkStatus();
}

absl::Status RawPuller::Run(Rounds* rounds) {
  round_ = 0;
  next_request_ = stream_.tensors.size();
  next_ = 0;
  for (bool more = true;;) {
    // By half a window, so that requests are few.
    if (more && in_flight_ <= stream_.window / 2) {
      SHARDSTEP_ASSIGN_OR_RETURN(more, Request(rounds));
    }
    if (in_flight_ > 0) {
      SHARDSTEP_RETURN_IF_ERROR(Receive());
    } else if (!more) {
      return absl::OkStatus();
    }
  }
}

absl::StatusOr<bool> RawPuller::Request(Rounds* rounds) {
  std::vector<RawHeader> requests;
  bool more = true;
  for (; in_flight_ < stream_.window; ++in_flight_) {
    if (next_request_ == stream_.tensors.size()) {
      if (rounds->lockstep() && in_flight_ > 0) break;
      SHARDSTEP_ASSIGN_OR_RETURN(more, rounds->Begin(round_++));
      if (!more) break;
      next_request_ = 0;
    }
    requests.push_back(stream_.Header(stream_.tensors[next_request_++]));
  }
  SHARDSTEP_RETURN_IF_ERROR(
      stream_.socket.Send(requests.data(), requests.size() * sizeof(RawHeader)));
  return more;
}

absl::Status RawPuller::Receive() {
  const int tensor = stream_.tensors[next_];
  next_ = (next_ + 1) % stream_.tensors.size();
  auto* const to = reinterpret_cast<char*>((*stream_.values)[tensor].data());
  const auto bytes = static_cast<size_t>(stream_.bytes);
  RawHeader header;
  size_t part = std::min(bytes, kReceiveBytes);
  std::array<iovec, 2> first = {{{&header, sizeof(header)}, {to, part}}};
  SHARDSTEP_RETURN_IF_ERROR(stream_.socket.ReceiveAll(first.data(), first.size()));
  for (size_t at = part; at < bytes; at += part) {
    part = std::min(bytes - at, kReceiveBytes);
    iovec more = {to + at, part};
    SHARDSTEP_RETURN_IF_ERROR(stream_.socket.ReceiveAll(&more, 1));
  }
  --in_flight_;
  if (header.tensor == tensor && header.bytes == stream_.bytes) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("expected tensor ", tensor, ", got tensor ", header.tensor));
}

}  // namespace shardstep
