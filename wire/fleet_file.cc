#include "shardstep/wire/fleet_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/nearest_name.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kForm[] = R"({"name": "...", "servers": [{"address": "host:port"}, ...]})";

// That `object` is an object without other keys than these.
absl::Status CheckKeys(const Json& object, absl::string_view what,
                       const std::vector<std::string>& known) {
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is not an object; expected ", kForm));
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string nearest = NearestName(key, known);
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has an unknown key \"", absl::CHexEscape(key.substr(0, 64)), "\"",
                     nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"")));
  }
  return absl::OkStatus();
}

// Leaves *value as it is if the key is missing and not required.
absl::Status ReadString(const Json& object, absl::string_view what, const char* key, bool required,
                        std::string* value) {
  const auto found = object.find(key);
  if (found == object.end()) {
    if (!required) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(what, " has no \"", key, "\""));
  }
  if (!found->is_string()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": \"", key, "\" is not a string"));
  }
  *value = found->get_ref<const std::string&>();
  return absl::OkStatus();
}

bool IsHostAndPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || address.size() > 300) return false;
  absl::string_view host = address.substr(0, colon);
  const absl::string_view port = address.substr(colon + 1);
  int number = 0;
  if (!std::all_of(port.begin(), port.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(port, &number) || number < 1 || number > 65535) {
    return false;
  }
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (brackets) host = host.substr(1, host.size() - 2);
  return !host.empty() && std::all_of(host.begin(), host.end(), [&](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_' || (brackets && c == ':');
  });
}

absl::Status ReadServers(const Json& root, std::vector<std::string>* servers) {
  const auto found = root.find("servers");
  if (found == root.end() || !found->is_array() || found->empty() || found->size() > kMaxServers) {
    return absl::InvalidArgumentError(absl::StrCat("\"servers\" is not a list of 1 to ",
                                                   kMaxServers, " servers; expected ", kForm));
  }
  absl::flat_hash_set<std::string> seen;
  for (const Json& entry : *found) {
    const std::string what = absl::StrCat("server ", servers->size());
    SHARDSTEP_RETURN_IF_ERROR(CheckKeys(entry, what, {"address"}));
    std::string address;
    SHARDSTEP_RETURN_IF_ERROR(ReadString(entry, what, "address", true, &address));
    if (!IsHostAndPort(address)) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, ": address \"", absl::CHexEscape(address.substr(0, 300)), "\" is not host:port"));
    }
    if (!seen.insert(address).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": address \"", address, "\" stands twice"));
    }
    servers->push_back(std::move(address));
  }
  return absl::OkStatus();
}

absl::Status CheckDurability(absl::string_view durability) {
  if (durability == "none" || durability == "checkpoint" || durability == "wal") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("durability \"", absl::CHexEscape(durability.substr(0, 64)),
                   "\", expected \"wal\", \"checkpoint\" or \"none\""));
}

absl::StatusOr<FleetFile> ParseJson(absl::string_view text) {
  const Json root = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat("is not valid JSON; expected ", kForm));
  }
  FleetFile fleet;
  SHARDSTEP_RETURN_IF_ERROR(
      CheckKeys(root, "it", {"name", "durability", "checkpoints", "servers"}));
  SHARDSTEP_RETURN_IF_ERROR(ReadString(root, "it", "name", true, &fleet.name));
  SHARDSTEP_RETURN_IF_ERROR(ValidateIdentifier("fleet", fleet.name));
  fleet.durability = "checkpoint";
  SHARDSTEP_RETURN_IF_ERROR(ReadString(root, "it", "durability", false, &fleet.durability));
  SHARDSTEP_RETURN_IF_ERROR(CheckDurability(fleet.durability));
  SHARDSTEP_RETURN_IF_ERROR(ReadString(root, "it", "checkpoints", false, &fleet.checkpoints));
  SHARDSTEP_RETURN_IF_ERROR(ReadServers(root, &fleet.servers));
  if (fleet.durability == "checkpoint" && fleet.checkpoints.empty()) {
    return absl::InvalidArgumentError(
        "durability \"checkpoint\", the default, needs \"checkpoints\", a folder that all servers "
        "see; without one say \"durability\": \"wal\" or \"none\"");
  }
  return fleet;
}

std::string Named(absl::string_view path) { return absl::StrCat("fleet file \"", path, "\""); }

absl::Status SystemError(int error, absl::string_view path, absl::string_view what) {
  return absl::ErrnoToStatus(error, absl::StrCat(Named(path), ": ", what));
}

}  // namespace

absl::StatusOr<FleetFile> FleetFile::Parse(absl::string_view json, absl::string_view path) {
  absl::StatusOr<FleetFile> fleet = ParseJson(json);
  if (fleet.ok()) return fleet;
  return absl::Status(fleet.status().code(),
                      absl::StrCat(Named(path), ": ", fleet.status().message()));
}

absl::StatusOr<FleetFile> FleetFile::Load(const std::string& path) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (in.is_open()) text << in.rdbuf();
  if (!in.is_open() && errno == ENOENT) {
    return absl::NotFoundError(
        absl::StrCat(Named(path),
                     ": no such file; pass --fleet or set SHARDSTEP_FLEET (local: shardctl fleet "
                     "up --servers 3 --dir D)"));
  }
  if (!in.is_open() || in.fail() || text.fail()) return SystemError(errno, path, "cannot be read");
  return Parse(text.str(), path);
}

absl::Status FleetFile::Write(const std::string& path) const {
  Json root;
  root["name"] = name;
  root["durability"] = durability;
  root["checkpoints"] = checkpoints;
  root["servers"] = Json::array();
  for (const std::string& address : servers) root["servers"].push_back({{"address", address}});
  const std::string text =
      root.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";

  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError(errno, path, "cannot be written");
  errno = 0;
  bool done = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!done && errno == 0) errno = ENOSPC;  // what a short write means
  done = done && fdatasync(fd) == 0;
  int error = errno;
  close(fd);
  if (done && std::rename(temporary.c_str(), path.c_str()) == 0) return absl::OkStatus();
  if (done) error = errno;
  unlink(temporary.c_str());
  return SystemError(error, path, "cannot be written");
}

std::string FleetFile::Hash() const {
  std::string text;
  for (const std::string* value : {&name, &durability, &checkpoints}) {
    absl::StrAppend(&text, value->size(), ":", *value);
  }
  absl::StrAppend(&text, servers.size());
  return Crc32cHex(Crc32c(text));
}

std::string FleetFile::Summary() const {
  return absl::StrCat(
      "name \"", name, "\", durability \"", durability, "\", ",
      checkpoints.empty() ? "no checkpoints" : absl::StrCat("checkpoints \"", checkpoints, "\""),
      ", ", servers.size(), servers.size() == 1 ? " server" : " servers");
}

}  // namespace shardstep
