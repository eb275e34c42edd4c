#include "shardstep/tests/bench/reference/raw_tcp_server.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/raw_tcp_wire.h"
#include "shardstep/tests/bench/reference/tcp_socket.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {
namespace {

// Small enough to be applied out of the cache.
constexpr size_t kHotBytes = 256 << 10;
// Of a message that is worth waiting for as a whole.
constexpr size_t kLargeBytes = 16 << 10;
constexpr size_t kMostRequests = 256;

absl::Status CheckHeader(const RawHeader& header, const TransferTensors& parameters) {
  if (header.tensor < 0 || header.tensor >= static_cast<int64_t>(parameters.size())) {
    return absl::OutOfRangeError(absl::StrCat("no tensor ", header.tensor));
  }
  const size_t bytes = parameters[header.tensor].size() * sizeof(float);
  if (header.bytes == static_cast<int64_t>(bytes)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", header.tensor, ": expected ", bytes, " bytes, got ", header.bytes));
}

// The server's end of one push connection.
class PushReceiver {
 public:
  PushReceiver(const TcpSocket& socket, const TransferWorkload& workload, bool sgd,
               TransferTensors* parameters)
      : socket_(socket),
        message_bytes_(sizeof(RawHeader) + workload.bytes),
        sgd_(sgd),
        parameters_(*parameters),
        hot_(kHotBytes) {}

  absl::Status Run() {
    for (;;) {
      SHARDSTEP_ASSIGN_OR_RETURN(const size_t received, Receive());
      if (received == 0) return CheckEnd();
      const int64_t before = received_.tensors;
      SHARDSTEP_RETURN_IF_ERROR(Consume(kept_ + received));
      if (received_.tensors == before) continue;
      SHARDSTEP_RETURN_IF_ERROR(socket_.Send(&received_, sizeof(received_)));
    }
  }

 private:
  // What follows the bytes kept. Of large messages all that fits: to be woken for each piece that
  // comes costs up to half of the throughput. Of small ones, as many as have come.
  absl::StatusOr<size_t> Receive() {
    const size_t space = hot_.size() - kept_;
    char* const to = hot_.data() + kept_;
    if (message_bytes_ < kLargeBytes) return socket_.Receive(to, space);
    const size_t rest = (left_ > 0 ? left_ : message_bytes_) - kept_;
    return socket_.Receive(to, std::min(rest, space), /*all=*/true);
  }

  absl::Status CheckEnd() const {
    if (kept_ == 0 && left_ == 0) return absl::OkStatus();
    return absl::UnavailableError("the client has ended in the middle of a tensor");
  }

  // Takes whole headers and floats from the first `bytes` of the buffer and carries what is left of
  // the last one to its begin.
  absl::Status Consume(size_t bytes) {
    size_t at = 0;
    for (;;) {
      if (left_ > 0) {
        const size_t part = std::min(bytes - at, left_) / sizeof(float) * sizeof(float);
        if (part == 0) break;
        Take(hot_.data() + at, part);
        at += part;
      } else {
        RawHeader header;
        if (bytes - at < sizeof(header)) break;
        std::memcpy(&header, hot_.data() + at, sizeof(header));
        at += sizeof(header);
        SHARDSTEP_RETURN_IF_ERROR(CheckHeader(header, parameters_));
        left_ = header.bytes;
        next_ = parameters_[header.tensor].data();
      }
    }
    kept_ = bytes - at;
    std::memmove(hot_.data(), hot_.data() + at, kept_);
    return absl::OkStatus();
  }

  void Take(const char* gradient, size_t bytes) {
    const size_t elements = bytes / sizeof(float);
    if (sgd_) ApplySgd(gradient, static_cast<int64_t>(elements), next_);
    next_ += elements;
    left_ -= bytes;
    received_.bytes += static_cast<int64_t>(bytes);
    if (left_ == 0) ++received_.tensors;
  }

  const TcpSocket& socket_;
  const size_t message_bytes_;
  const bool sgd_;
  TransferTensors& parameters_;
  std::vector<char> hot_;
  size_t kept_ = 0;        // bytes at the buffer's begin that wait for the rest of theirs
  size_t left_ = 0;        // bytes of the current tensor that are still to come
  float* next_ = nullptr;  // where they go
  RawAck received_ = {0, 0};
};

absl::Status SendTensor(const TcpSocket& socket, RawHeader header, TransferTensors* parameters) {
  SHARDSTEP_RETURN_IF_ERROR(CheckHeader(header, *parameters));
  std::array<iovec, 2> parts = {
      {{&header, sizeof(header)},
       {(*parameters)[header.tensor].data(), static_cast<size_t>(header.bytes)}}};
  return socket.Send(parts.data(), parts.size());
}

absl::Status ServePulls(const TcpSocket& socket, TransferTensors* parameters) {
  std::array<RawHeader, kMostRequests> requests;
  auto* const buffer = reinterpret_cast<char*>(requests.data());
  size_t kept = 0;
  for (;;) {
    SHARDSTEP_ASSIGN_OR_RETURN(const size_t received,
                               socket.Receive(buffer + kept, sizeof(requests) - kept));
    if (received == 0) return absl::OkStatus();
    const size_t bytes = kept + received;
    const size_t count = bytes / sizeof(RawHeader);
    for (size_t i = 0; i < count; ++i) {
      SHARDSTEP_RETURN_IF_ERROR(SendTensor(socket, requests[i], parameters));
    }
    kept = bytes % sizeof(RawHeader);
    std::memmove(buffer, buffer + bytes - kept, kept);
  }
}

absl::Status ServeConnection(const TcpSocket& socket, const TransferWorkload& workload, bool sgd,
                             TransferTensors* parameters) {
  RawDirection direction;
  iovec part = {&direction, sizeof(direction)};
  SHARDSTEP_RETURN_IF_ERROR(socket.ReceiveAll(&part, 1));
  if (direction == RawDirection::kPush)
    return PushReceiver(socket, workload, sgd, parameters).Run();
  return ServePulls(socket, parameters);
}

}  // namespace

absl::Status ServeRawTcp(const TransferWorkload& workload, bool sgd,
                         const std::function<void(int port)>& listening) {
  SHARDSTEP_RETURN_IF_ERROR(Validate(workload));
  TransferTensors parameters = InitialParameters(workload);
  SHARDSTEP_ASSIGN_OR_RETURN(const TcpListener listener, TcpListener::Create());
  listening(listener.port());
  std::vector<absl::Status> ends(size_t{2} * workload.streams);
  std::vector<std::thread> threads;
  absl::Status status;
  for (absl::Status& end : ends) {
    absl::StatusOr<TcpSocket> socket = listener.Accept();
    status.Update(socket.status());
    if (!socket.ok()) break;
    threads.emplace_back([&, socket = *std::move(socket)]() mutable {
      end = ServeConnection(socket, workload, sgd, &parameters);
      // The client learns at once of an error: its connection ends.
      TcpSocket closing = std::move(socket);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& end : ends) status.Update(end);
  return status;
}

}  // namespace shardstep
