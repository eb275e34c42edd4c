// A directory of a test's own.
#ifndef SHARDSTEP_CHECKPOINT_TEMPORARY_DIRECTORY_H_
#define SHARDSTEP_CHECKPOINT_TEMPORARY_DIRECTORY_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "shardstep/checkpoint/file_system.h"

namespace shardstep {

// Empty at first; removed with all it holds at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_(JoinPath(testing::TempDir(), "shardstep-XXXXXX")) {
    if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << path_ << ": mkdtemp";
  }
  ~TemporaryDirectory() { RemoveTree(PosixFileSystem(), path_).IgnoreError(); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return JoinPath(path_, name); }

 private:
  std::string path_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_TEMPORARY_DIRECTORY_H_
