#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// The disk is told to start on appended bytes each time so many have come together.
constexpr int64_t kWritebackBytes = 8 << 20;

absl::Status Error(const std::string& path, absl::string_view operation) {
  return absl::ErrnoToStatus(errno, absl::StrCat("\"", path, "\": ", operation));
}

// Repeats a system call that a signal interrupts.
template <typename Call>
auto Retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

absl::Status SyncPath(const std::string& path, int flags) {
  const int fd = Retry([&] { return open(path.c_str(), flags | O_CLOEXEC); });
  if (fd < 0) return Error(path, "open");
  const int synced = Retry([&] { return fsync(fd); });
  const int error = errno;
  close(fd);
  errno = error;
  return synced == 0 ? absl::OkStatus() : Error(path, "fsync");
}

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  ~PosixWritableFile() override {
    if (fd_ >= 0) close(fd_);
  }

  absl::Status Reserve(int64_t bytes) override {
    if (bytes == 0 || Retry([&] { return fallocate(fd_, 0, 0, bytes); }) == 0 ||
        errno == EOPNOTSUPP) {
      return absl::OkStatus();
    }
    return Error(path_, absl::StrCat("reserve ", bytes, " bytes"));
  }

  absl::Status Append(absl::string_view data) override {
    SHARDSTEP_RETURN_IF_ERROR(WriteAt(size_, data));
    size_ += static_cast<int64_t>(data.size());
    if (size_ - started_ < kWritebackBytes) return absl::OkStatus();
    // Where a file system cannot do it, Sync does it all.
    sync_file_range(fd_, started_, size_ - started_, SYNC_FILE_RANGE_WRITE);
    started_ = size_;
    return absl::OkStatus();
  }

  absl::Status WriteAt(int64_t offset, absl::string_view data) override {
    while (!data.empty()) {
      const ssize_t written = Retry([&] { return pwrite(fd_, data.data(), data.size(), offset); });
      if (written < 0) return Error(path_, absl::StrCat("write at byte ", offset));
      data.remove_prefix(written);
      offset += written;
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    if (Retry([&] { return fdatasync(fd_); }) != 0) return Error(path_, "fdatasync");
    return absl::OkStatus();
  }

  absl::Status Close() override {
    // Never twice: the number may be another file's by then.
    if (close(std::exchange(fd_, -1)) != 0) return Error(path_, "close");
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  int fd_;
  int64_t size_ = 0;
  int64_t started_ = 0;  // what the disk was told to start on
};

class PosixReadableFile : public ReadableFile {
 public:
  PosixReadableFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  ~PosixReadableFile() override { close(fd_); }

  absl::StatusOr<size_t> ReadAt(int64_t offset, char* out, size_t size) const override {
    size_t done = 0;
    while (done < size) {
      const ssize_t got = Retry(
          [&] { return pread(fd_, out + done, size - done, offset + static_cast<int64_t>(done)); });
      if (got < 0) return Error(path_, absl::StrCat("read at byte ", offset + done));
      if (got == 0) break;
      done += got;
    }
    return done;
  }

  absl::StatusOr<int64_t> Size() const override {
    struct stat info = {};
    if (fstat(fd_, &info) != 0) return Error(path_, "stat");
    return static_cast<int64_t>(info.st_size);
  }

  const std::string& path() const override { return path_; }

 private:
  const std::string path_;
  const int fd_;
};

class Posix : public FileSystem {
 public:
  absl::Status CreateDirectories(const std::string& path) override {
    // A slash at the end, and each one between names, ends a directory's path.
    for (size_t end = 0; end < path.size();) {
      end = std::min(path.find('/', end + 1), path.size());
      const std::string directory = path.substr(0, end);
      if (mkdir(directory.c_str(), 0755) == 0) {
        const size_t slash = directory.rfind('/');
        const std::string parent = slash == std::string::npos ? "."
                                   : slash == 0               ? "/"
                                                              : directory.substr(0, slash);
        SHARDSTEP_RETURN_IF_ERROR(SyncDirectory(parent));
      } else if (errno != EEXIST) {
        return Error(directory, "mkdir");
      }
    }
    struct stat info = {};
    if (stat(path.c_str(), &info) != 0) return Error(path, "stat");
    if (S_ISDIR(info.st_mode)) return absl::OkStatus();
    errno = ENOTDIR;
    return Error(path, "mkdir");
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> CreateFile(const std::string& path) override {
    const int fd =
        Retry([&] { return open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644); });
    if (fd < 0) return Error(path, "create");
    return std::make_unique<PosixWritableFile>(path, fd);
  }

  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenFile(const std::string& path) override {
    const int fd = Retry([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC); });
    if (fd < 0) return Error(path, "open");
    auto file = std::make_unique<PosixReadableFile>(path, fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return file;
  }

  absl::Status SyncFile(const std::string& path) override { return SyncPath(path, O_RDONLY); }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return Error(from, absl::StrCat("rename to \"", to, "\""));
  }

  absl::Status SyncDirectory(const std::string& path) override {
    return SyncPath(path, O_RDONLY | O_DIRECTORY);
  }

  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override {
    DIR* directory = opendir(path.c_str());
    if (directory == nullptr) return Error(path, "open directory");
    std::vector<DirectoryEntry> entries;
    absl::Status status;
    while (status.ok()) {
      errno = 0;
      const dirent* entry = readdir(directory);  // NOLINT(concurrency-mt-unsafe): its own stream
      if (entry == nullptr) {
        if (errno != 0) status = Error(path, "list");
        break;
      }
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      bool is_directory = entry->d_type == DT_DIR;
      if (entry->d_type == DT_UNKNOWN) {
        struct stat info = {};
        is_directory = lstat(JoinPath(path, name).c_str(), &info) == 0 && S_ISDIR(info.st_mode);
      }
      entries.push_back({name, is_directory});
    }
    closedir(directory);
    if (!status.ok()) return status;
    std::sort(entries.begin(), entries.end(),
              [](const DirectoryEntry& a, const DirectoryEntry& b) { return a.name < b.name; });
    return entries;
  }

  absl::StatusOr<bool> Exists(const std::string& path) override {
    struct stat info = {};
    if (lstat(path.c_str(), &info) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return Error(path, "stat");
  }

  absl::Status RemoveFile(const std::string& path) override {
    return unlink(path.c_str()) == 0 ? absl::OkStatus() : Error(path, "unlink");
  }

  absl::Status RemoveDirectory(const std::string& path) override {
    return rmdir(path.c_str()) == 0 ? absl::OkStatus() : Error(path, "rmdir");
  }
};

}  // namespace

FileSystem* PosixFileSystem() {
  static Posix* const posix = new Posix;
  return posix;
}

}  // namespace shardstep
