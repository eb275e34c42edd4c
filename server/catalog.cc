#include "shardstep/server/catalog.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

namespace fs = std::filesystem;

absl::Status Failed(const std::string& what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat(what, " \"", path, "\""));
}

absl::Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Failed("cannot open directory", path);
  const int failed = fsync(fd);
  const int error = errno;
  close(fd);
  errno = error;
  return failed == 0 ? absl::OkStatus() : Failed("cannot sync directory", path);
}

// Replaces `path` as a whole and durably.
absl::Status WriteFile(const fs::path& path, const std::string& bytes) {
  const std::string temporary = absl::StrCat(path.string(), ".tmp");
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return Failed("cannot create", temporary);
  size_t done = 0;
  bool failed = false;
  while (!failed && done < bytes.size()) {
    const ssize_t n = write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    failed = n < 0;
    if (!failed) done += n;
  }
  failed = failed || fdatasync(fd) != 0;
  const int error = errno;
  close(fd);
  errno = error;
  if (failed) return Failed("cannot write", temporary);
  if (rename(temporary.c_str(), path.c_str()) != 0) return Failed("cannot rename to", path);
  return SyncDirectory(path.parent_path());
}

absl::StatusOr<std::string> ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream bytes;
  bytes << in.rdbuf();
  if (!in.good() || !bytes.good()) {
    return absl::DataLossError(absl::StrCat("cannot read \"", path.string(), "\""));
  }
  return bytes.str();
}

absl::StatusOr<uint64_t> NextIncarnation(const fs::path& path) {
  uint64_t last = 0;
  if (fs::exists(path)) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    if (!absl::SimpleAtoi(text, &last)) {
      return absl::DataLossError(
          absl::StrCat("\"", path.string(), "\": expected a number, got \"", text, "\""));
    }
  }
  SHARDSTEP_RETURN_IF_ERROR(WriteFile(path, absl::StrCat(last + 1, "\n")));
  return last + 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Catalog>> Catalog::Open(const std::string& directory) {
  std::unique_ptr<Catalog> catalog(new Catalog());
  catalog->directory_ = directory;
  const fs::path root = directory;
  const fs::path entries = root / "catalog";
  std::error_code error;
  fs::create_directories(entries, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("data directory \"", directory, "\": cannot be created: ", error.message()));
  }
  const std::string lock = root / "LOCK";
  catalog->lock_ = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (catalog->lock_ < 0) return Failed("cannot create", lock);
  if (flock(catalog->lock_, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "data directory \"", directory, "\" is in use by another server; give each its own"));
  }
  // The lock's holder, for people and for `shardctl fleet down`.
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(catalog->lock_, 0) != 0 ||
      pwrite(catalog->lock_, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return Failed("cannot write", lock);
  }
  SHARDSTEP_ASSIGN_OR_RETURN(catalog->incarnation_, NextIncarnation(root / "incarnation"));
  for (const auto& file : fs::directory_iterator(entries, error)) {
    if (file.path().extension() != ".pb") continue;
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file.path()));
    v1::CatalogEntry entry;
    const std::string name = file.path().stem();
    if (!entry.ParseFromString(bytes) || entry.description().definition().name() != name) {
      return absl::DataLossError(
          absl::StrCat("\"", file.path().string(), "\" is not a catalog entry of \"", name, "\""));
    }
    catalog->found_.emplace(name, std::move(entry));
  }
  if (error) return absl::DataLossError(absl::StrCat("cannot list \"", entries.string(), "\""));
  return catalog;
}

Catalog::~Catalog() {
  if (lock_ >= 0) close(lock_);
}

absl::Status Catalog::Write(const std::string& optimizer, const v1::CatalogEntry& entry) {
  return WriteFile(fs::path(directory_) / "catalog" / absl::StrCat(optimizer, ".pb"),
                   entry.SerializeAsString());
}

absl::Status Catalog::Remove(const std::string& optimizer) {
  const fs::path path = fs::path(directory_) / "catalog" / absl::StrCat(optimizer, ".pb");
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return Failed("cannot remove", path);
  return SyncDirectory(path.parent_path());
}

}  // namespace shardstep
