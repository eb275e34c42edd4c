#include "shardstep/tests/faults/trainer_progress.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace shardstep {

static_assert(std::atomic<uint64_t>::is_always_lock_free, "it is shared between processes");

void Unmap::operator()(TrainerProgress* progress) const { munmap(progress, sizeof(*progress)); }

absl::StatusOr<SharedProgress> MapProgress(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("progress \"", path, "\""));
  void* mapped = MAP_FAILED;
  if (ftruncate(fd, sizeof(TrainerProgress)) == 0) {
    mapped = mmap(nullptr, sizeof(TrainerProgress), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  const int error = errno;
  close(fd);
  if (mapped == MAP_FAILED) {
    return absl::ErrnoToStatus(error, absl::StrCat("progress \"", path, "\""));
  }
  return SharedProgress(static_cast<TrainerProgress*>(mapped));
}

}  // namespace shardstep
