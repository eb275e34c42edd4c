#include "shardstep/checkpoint/simulated_file_system.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

constexpr int64_t kPage = 4096;
// What a disk writes at once.
constexpr int64_t kSector = 512;

std::vector<std::string> Split(const std::string& path) {
  return absl::StrSplit(path, '/', absl::SkipEmpty());
}

absl::Status Error(absl::StatusCode code, const std::string& path, absl::string_view operation,
                   absl::string_view why) {
  return absl::Status(code, absl::StrCat("\"", path, "\": ", operation, ": ", why));
}

absl::Status NotFound(const std::string& path, absl::string_view operation) {
  return Error(absl::StatusCode::kNotFound, path, operation, "no such file or directory");
}

}  // namespace

// A file or a directory; what is not its kind's is empty.
struct SimulatedFileSystem::Node {
  using Names = std::map<std::string, NodePtr>;
  // Null: the name is removed.
  using Change = std::vector<std::pair<std::string, NodePtr>>;

  explicit Node(bool is_directory) : is_directory(is_directory) {}

  static void Apply(const Change& change, Names* names) {
    for (const auto& [name, node] : change) {
      if (node == nullptr) {
        names->erase(name);
      } else {
        (*names)[name] = node;
      }
    }
  }

  void ChangeNames(Change change) {
    Apply(change, &names);
    changes.push_back(std::move(change));
  }

  void Write(int64_t offset, absl::string_view data) {
    if (data.empty()) return;
    const int64_t end = offset + static_cast<int64_t>(data.size());
    if (end > static_cast<int64_t>(content.size())) content.resize(end);
    std::memcpy(content.data() + offset, data.data(), data.size());
    for (int64_t page = offset / kPage; page * kPage < end; ++page) dirty.insert(page);
  }

  void Sync() {
    if (is_directory) {
      synced_names = names;
      changes.clear();
      return;
    }
    synced.resize(content.size());
    for (const int64_t page : dirty) CopyPage(page, kPage);
    dirty.clear();
  }

  // The first `bytes` of the page, to what is synced.
  void CopyPage(int64_t page, int64_t bytes) {
    const int64_t begin = page * kPage;
    const int64_t end = std::min<int64_t>(begin + bytes, content.size());
    if (end <= begin) return;
    if (end > static_cast<int64_t>(synced.size())) synced.resize(end);
    std::memcpy(synced.data() + begin, content.data() + begin, end - begin);
  }

  void Crash(const std::function<uint64_t()>& random) {
    if (is_directory) {
      changes.resize(random() % (changes.size() + 1));
      for (const Change& change : changes) Apply(change, &synced_names);
      names = synced_names;
      changes.clear();
      for (const auto& [name, node] : names) node->Crash(random);
      return;
    }
    if (content.size() > synced.size() && random() % 2 == 0) synced.resize(content.size());
    for (const int64_t page : dirty) {
      const uint64_t outcome = random() % 3;
      if (outcome == 0) CopyPage(page, kPage);
      if (outcome == 1) CopyPage(page, random() % (kPage / kSector) * kSector);
    }
    content = synced;
    dirty.clear();
  }

  int64_t Bytes() const {
    int64_t bytes = content.size();
    for (const auto& [name, node] : names) bytes += node->Bytes();
    return bytes;
  }

  NodePtr Copy() const {
    auto copy = std::make_shared<Node>(is_directory);
    copy->content = copy->synced = content;
    for (const auto& [name, node] : names) copy->names[name] = node->Copy();
    copy->synced_names = copy->names;
    return copy;
  }

  const bool is_directory;
  Names names;
  Names synced_names;
  // In order, since they were synced.
  std::vector<Change> changes;
  std::string content;
  std::string synced;
  // Pages written since it was synced.
  std::set<int64_t> dirty;
};

class SimulatedFileSystem::File final : public WritableFile {
 public:
  File(SimulatedFileSystem* files, NodePtr node, std::string path)
      : files_(files), node_(std::move(node)), path_(std::move(path)), process_(files->process_) {}

  absl::Status Reserve(int64_t bytes) override {
    SHARDSTEP_RETURN_IF_ERROR(BeforeChange("reserve"));
    const int64_t more = bytes - static_cast<int64_t>(node_->content.size());
    if (more <= 0) return absl::OkStatus();
    if (more > files_->room()) return Full("reserve");
    node_->content.resize(bytes);
    return absl::OkStatus();
  }

  absl::Status Append(absl::string_view data) override {
    SHARDSTEP_RETURN_IF_ERROR(WriteAt(appended_, data));
    appended_ += static_cast<int64_t>(data.size());
    return absl::OkStatus();
  }

  absl::Status WriteAt(int64_t offset, absl::string_view data) override {
    SHARDSTEP_RETURN_IF_ERROR(BeforeChange("write"));
    const int64_t end = offset + static_cast<int64_t>(data.size());
    const int64_t more = std::max<int64_t>(0, end - static_cast<int64_t>(node_->content.size()));
    const int64_t missing = std::max<int64_t>(0, more - files_->room());
    const int64_t fits = std::max<int64_t>(0, static_cast<int64_t>(data.size()) - missing);
    node_->Write(offset, data.substr(0, fits));
    return missing > 0 ? Full("write") : absl::OkStatus();
  }

  absl::Status Sync() override {
    SHARDSTEP_RETURN_IF_ERROR(BeforeChange("fdatasync"));
    SHARDSTEP_RETURN_IF_ERROR(files_->sync_error_);
    node_->Sync();
    return absl::OkStatus();
  }

  absl::Status Close() override { return absl::OkStatus(); }

 private:
  absl::Status BeforeChange(const std::string& operation) const {
    if (process_ != files_->process_) {
      return Error(absl::StatusCode::kUnavailable, path_, operation, "the process is dead");
    }
    return files_->BeforeChange(path_, operation);
  }
  absl::Status Full(absl::string_view operation) const {
    return Error(absl::StatusCode::kResourceExhausted, path_, operation, "the disk is full");
  }

  SimulatedFileSystem* const files_;
  const NodePtr node_;
  const std::string path_;
  const int64_t process_;
  int64_t appended_ = 0;
};

class SimulatedFileSystem::Reader final : public ReadableFile {
 public:
  Reader(NodePtr node, std::string path) : node_(std::move(node)), path_(std::move(path)) {}

  absl::StatusOr<size_t> ReadAt(int64_t offset, char* out, size_t size) const override {
    const int64_t left = static_cast<int64_t>(node_->content.size()) - offset;
    const size_t got = std::min<size_t>(size, std::max<int64_t>(0, left));
    if (got > 0) std::memcpy(out, node_->content.data() + offset, got);
    return got;
  }
  absl::StatusOr<int64_t> Size() const override { return node_->content.size(); }
  const std::string& path() const override { return path_; }

 private:
  const NodePtr node_;
  const std::string path_;
};

SimulatedFileSystem::SimulatedFileSystem() : root_(std::make_shared<Node>(true)) {}
SimulatedFileSystem::~SimulatedFileSystem() = default;

// ---- death and errors

void SimulatedFileSystem::Restart() {
  freeze_at_ = kNever;
  ++process_;
}

void SimulatedFileSystem::Crash(const std::function<uint64_t()>& random) {
  root_->Crash(random);
  Restart();
}

void SimulatedFileSystem::FailChange(int64_t at, absl::Status error) {
  fail_at_ = changes_ + at;
  fail_with_ = std::move(error);
}

absl::Status SimulatedFileSystem::BeforeChange(const std::string& path,
                                               const std::string& operation) {
  if (changes_ >= freeze_at_) {
    return Error(absl::StatusCode::kUnavailable, path, operation, "the process is dead");
  }
  if (changes_++ != fail_at_) return absl::OkStatus();
  return Error(fail_with_.code(), path, operation, fail_with_.message());
}

int64_t SimulatedFileSystem::used_bytes() const { return root_->Bytes(); }

int64_t SimulatedFileSystem::room() const {
  return limit_ < 0 ? std::numeric_limits<int64_t>::max()
                    : std::max<int64_t>(0, limit_ - used_bytes());
}

std::unique_ptr<SimulatedFileSystem> SimulatedFileSystem::Clone() const {
  auto clone = std::make_unique<SimulatedFileSystem>();
  clone->root_ = root_->Copy();
  return clone;
}

// ---- names

SimulatedFileSystem::NodePtr SimulatedFileSystem::Find(const std::string& path) const {
  NodePtr node = root_;
  for (const std::string& name : Split(path)) {
    const auto found = node->names.find(name);
    if (found == node->names.end()) return nullptr;
    node = found->second;
  }
  return node;
}

absl::StatusOr<SimulatedFileSystem::NodePtr> SimulatedFileSystem::ParentOf(
    const std::string& path, const std::string& operation) const {
  const size_t slash = path.find_last_not_of('/');
  const size_t end = slash == std::string::npos ? 0 : path.rfind('/', slash);
  NodePtr parent = Find(end == std::string::npos ? "" : path.substr(0, end));
  if (parent == nullptr || !parent->is_directory) return NotFound(path, operation);
  return parent;
}

absl::Status SimulatedFileSystem::CreateDirectories(const std::string& path) {
  const NodePtr found = Find(path);
  if (found != nullptr && found->is_directory) return absl::OkStatus();
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange(path, "mkdir"));
  NodePtr node = root_;
  for (const std::string& name : Split(path)) {
    NodePtr& child = node->names[name];
    if (child == nullptr) {
      child = std::make_shared<Node>(true);
      node->Sync();
    }
    if (!child->is_directory) {
      return Error(absl::StatusCode::kFailedPrecondition, path, "mkdir", "not a directory");
    }
    node = child;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<WritableFile>> SimulatedFileSystem::CreateFile(
    const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange(path, "create"));
  SHARDSTEP_ASSIGN_OR_RETURN(const NodePtr parent, ParentOf(path, "create"));
  if (Find(path) != nullptr) {
    return Error(absl::StatusCode::kAlreadyExists, path, "create", "file exists");
  }
  if (room() <= 0) {
    return Error(absl::StatusCode::kResourceExhausted, path, "create", "the disk is full");
  }
  auto node = std::make_shared<Node>(false);
  parent->ChangeNames({{Split(path).back(), node}});
  return std::make_unique<File>(this, std::move(node), path);
}

absl::StatusOr<std::unique_ptr<ReadableFile>> SimulatedFileSystem::OpenFile(
    const std::string& path) {
  NodePtr node = Find(path);
  if (node == nullptr || node->is_directory) return NotFound(path, "open");
  return std::make_unique<Reader>(std::move(node), path);
}

absl::Status SimulatedFileSystem::SyncFile(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange(path, "fsync"));
  const NodePtr node = Find(path);
  if (node == nullptr) return NotFound(path, "fsync");
  SHARDSTEP_RETURN_IF_ERROR(sync_error_);
  node->Sync();
  return absl::OkStatus();
}

absl::Status SimulatedFileSystem::SyncDirectory(const std::string& path) {
  const NodePtr node = Find(path);
  if (node != nullptr && !node->is_directory) return NotFound(path, "fsync");
  return SyncFile(path);
}

absl::Status SimulatedFileSystem::Rename(const std::string& from, const std::string& to) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange(from, "rename"));
  const NodePtr node = Find(from);
  if (node == nullptr) return NotFound(from, "rename");
  SHARDSTEP_ASSIGN_OR_RETURN(const NodePtr source, ParentOf(from, "rename"));
  SHARDSTEP_ASSIGN_OR_RETURN(const NodePtr target, ParentOf(to, "rename"));
  const NodePtr replaced = Find(to);
  if (replaced != nullptr &&
      (replaced->is_directory != node->is_directory || !replaced->names.empty())) {
    return Error(absl::StatusCode::kFailedPrecondition, from,
                 absl::StrCat("rename to \"", to, "\""), "cannot replace what is there");
  }
  const std::string old_name = Split(from).back();
  const std::string new_name = Split(to).back();
  if (source == target) {
    if (old_name != new_name) source->ChangeNames({{old_name, nullptr}, {new_name, node}});
    return absl::OkStatus();
  }
  source->ChangeNames({{old_name, nullptr}});
  target->ChangeNames({{new_name, node}});
  source->Sync();
  target->Sync();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<DirectoryEntry>> SimulatedFileSystem::List(const std::string& path) {
  const NodePtr node = Find(path);
  if (node == nullptr || !node->is_directory) return NotFound(path, "open directory");
  std::vector<DirectoryEntry> entries;
  for (const auto& [name, child] : node->names) entries.push_back({name, child->is_directory});
  return entries;
}

absl::StatusOr<bool> SimulatedFileSystem::Exists(const std::string& path) {
  return Find(path) != nullptr;
}

absl::Status SimulatedFileSystem::Remove(const std::string& path, bool is_directory) {
  const std::string operation = is_directory ? "rmdir" : "unlink";
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange(path, operation));
  const NodePtr node = Find(path);
  if (node == nullptr || node->is_directory != is_directory || node == root_) {
    return NotFound(path, operation);
  }
  if (!node->names.empty()) {
    return Error(absl::StatusCode::kFailedPrecondition, path, operation, "directory not empty");
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const NodePtr parent, ParentOf(path, operation));
  parent->ChangeNames({{Split(path).back(), nullptr}});
  return absl::OkStatus();
}

absl::Status SimulatedFileSystem::RemoveFile(const std::string& path) {
  return Remove(path, false);
}

absl::Status SimulatedFileSystem::RemoveDirectory(const std::string& path) {
  return Remove(path, true);
}

}  // namespace shardstep
