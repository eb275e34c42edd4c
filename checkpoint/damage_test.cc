// Whatever byte of a checkpoint is changed or missing: it is refused, and the file and place named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/directory.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/manifest.h"
#include "shardstep/checkpoint/reader.h"
#include "shardstep/checkpoint/small_checkpoint.h"
#include "shardstep/checkpoint/temporary_directory.h"
#include "shardstep/checkpoint/verify.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void NoProgress(int64_t) {}

class DamageTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(WriteSmallCheckpoint(files_, directory_.path(), model_, MakeManifest(model_, "1-7")));
    ASSERT_OK_AND_ASSIGN(const auto entries, files_->List(checkpoint_));
    for (const DirectoryEntry& entry : entries) names_.push_back(entry.name);
    ASSERT_EQ(names_.size(), 4u);
  }

  std::string Content(const std::string& name) {
    return ReadWholeFile(files_, JoinPath(checkpoint_, name), 1 << 20).value();
  }

  void Replace(const std::string& name, absl::string_view content) {
    const std::string path = JoinPath(checkpoint_, name);
    ASSERT_OK(files_->RemoveFile(path));
    ASSERT_OK_AND_ASSIGN(auto file, files_->CreateFile(path));  // without a sync: there are many
    ASSERT_OK(file->Append(content));
  }

  // Opens the checkpoint and reads every tensor.
  absl::Status Load() {
    const absl::StatusOr<CheckpointReader> reader =
        CheckpointReader::Open(files_, directory_.path(), "digits", "1-7");
    if (!reader.ok()) return reader.status();
    std::vector<std::string> memory;
    std::vector<CheckpointReader::Target> targets;
    for (const auto& [key, tensor] : reader->tensors()) {
      memory.emplace_back(model_.tensors.at(key).size(), '\0');
      targets.push_back({key, {Shape(tensor.sizes.size(), 0), tensor.sizes}, memory.back().data()});
    }
    return reader->Read(targets, NoProgress);
  }

  std::vector<FileProblem> Verify() {
    return VerifyCheckpoint(files_, directory_.path(), "digits", "1-7", NoProgress).value();
  }

  // That loading fails and that verifying tells of `name`, and of a place or a size.
  void ExpectRefused(const std::string& name) {
    EXPECT_THAT(Load(),
                StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(name), HasSubstr("bytes"))));
    const std::vector<FileProblem> problems = Verify();
    ASSERT_FALSE(problems.empty());
    EXPECT_EQ(problems[0].file, name);
    EXPECT_THAT(problems[0].what, HasSubstr("bytes"));
  }

  const TemporaryDirectory directory_;
  FileSystem* const files_ = PosixFileSystem();
  const SmallModel model_ = TwoServerModel();
  const std::string checkpoint_ = JoinPath(directory_.path(), "digits/1-7");
  std::vector<std::string> names_;
};

TEST_F(DamageTest, AWholeCheckpointIsFine) {
  EXPECT_OK(Load());
  int64_t bytes = 0;
  EXPECT_THAT(VerifyCheckpoint(files_, directory_.path(), "digits", "1-7",
                               [&](int64_t read) { bytes += read; }),
              IsOkAndHolds(IsEmpty()));
  ASSERT_OK_AND_ASSIGN(const CheckpointList list,
                       CheckpointRoot(files_, directory_.path()).List("digits"));
  EXPECT_EQ(bytes, list.checkpoints[0].bytes);
}

TEST_F(DamageTest, EveryPrefixIsRefused) {
  for (const std::string& name : names_) {
    const std::string content = Content(name);
    for (size_t size = 0; size < content.size(); ++size) {
      SCOPED_TRACE(absl::StrCat(name, " of ", size, " bytes"));
      Replace(name, absl::string_view(content).substr(0, size));
      ExpectRefused(name);
    }
    Replace(name, content + "x");
    ExpectRefused(name);
    Replace(name, content);
  }
  EXPECT_OK(Load());
}

TEST_F(DamageTest, EveryFlippedByteIsRefused) {
  for (const std::string& name : names_) {
    const std::string content = Content(name);
    for (size_t at = 0; at < content.size(); ++at) {
      SCOPED_TRACE(absl::StrCat(name, " at ", at));
      std::string damaged = content;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
      Replace(name, damaged);
      ExpectRefused(name);
    }
    Replace(name, content);
  }
  EXPECT_OK(Load());
}

TEST_F(DamageTest, EveryMissingFileIsRefused) {
  for (const std::string& name : names_) {
    const std::string content = Content(name);
    ASSERT_OK(files_->RemoveFile(JoinPath(checkpoint_, name)));
    EXPECT_THAT(Load(), StatusIs(absl::StatusCode::kDataLoss,
                                 AllOf(HasSubstr(name), HasSubstr("missing"))));
    ASSERT_EQ(Verify().size(), 1u);
    EXPECT_EQ(Verify()[0].file, name);
    EXPECT_EQ(Verify()[0].what, "missing");
    ASSERT_OK(WriteWholeFile(files_, JoinPath(checkpoint_, name), content));
  }
}

TEST_F(DamageTest, FilesThatChangedPlacesAreRefused) {
  const std::string one = Content(names_[1]);
  Replace(names_[1], Content(names_[2]));
  Replace(names_[2], one);
  EXPECT_THAT(Load(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(names_[1])));
  EXPECT_EQ(Verify().back().file, names_[2]);
}

TEST_F(DamageTest, VerifyFindsAllThatIsWrong) {
  std::string content = Content(names_[1]);
  content.back() ^= 1;
  Replace(names_[1], content);
  ASSERT_OK(files_->RemoveFile(JoinPath(checkpoint_, names_[3])));
  ASSERT_OK(WriteWholeFile(files_, JoinPath(checkpoint_, "more.safetensors"), "x"));
  const std::vector<FileProblem> problems = Verify();
  ASSERT_EQ(problems.size(), 4u);
  EXPECT_EQ(problems[0].file, names_[1]);
  EXPECT_THAT(problems[0].what,
              AllOf(HasSubstr(absl::StrCat("bytes 0 to ", content.size(), ": CRC32C ")),
                    HasSubstr("expected")));
  EXPECT_EQ(problems[1].file, names_[1]);
  EXPECT_THAT(problems[1].what, HasSubstr("SHA-256"));
  EXPECT_EQ(problems[2].file, names_[3]);
  EXPECT_EQ(problems[3].file, "more.safetensors");
  EXPECT_EQ(problems[3].what, "not in the manifest");
  EXPECT_THAT(VerifyCheckpoint(files_, directory_.path(), "digits", "1-8", NoProgress),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("did you mean \"1-7\"")));
  EXPECT_THAT(VerifyCheckpoint(files_, directory_.path(), "digits", "..", NoProgress),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace shardstep
