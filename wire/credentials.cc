#include "shardstep/wire/credentials.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace shardstep {

std::shared_ptr<grpc::ServerCredentials> ServerCredentials() {
  return grpc::InsecureServerCredentials();
}

std::shared_ptr<grpc::ChannelCredentials> ClientCredentials() {
  return grpc::InsecureChannelCredentials();
}

bool IsLoopback(absl::string_view address) {
  std::string host;
  if (absl::ConsumePrefix(&address, "[")) {
    host = std::string(address.substr(0, address.find(']')));
  } else if (address.find(':') == address.rfind(':')) {
    host = std::string(address.substr(0, address.find(':')));
  } else {
    host = std::string(address);  // an IPv6 address without brackets
  }
  if (host == "localhost") return true;
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6;
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::Status CheckListenAddress(absl::string_view address, bool insecure) {
  if (insecure || IsLoopback(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "listen address \"", absl::CHexEscape(address),
      "\": not a loopback address, and connections are neither encrypted nor authenticated; listen "
      "on 127.0.0.1, or pass --insecure if the network is trusted"));
}

}  // namespace shardstep
