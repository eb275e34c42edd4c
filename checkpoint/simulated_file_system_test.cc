#include "shardstep/checkpoint/simulated_file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kPage = 4096;

std::string Read(SimulatedFileSystem* files, const std::string& path) {
  return ReadWholeFile(files, path, 1 << 20).value_or("unreadable");
}

std::string Names(SimulatedFileSystem* files, const std::string& path) {
  const std::vector<DirectoryEntry> entries = files->List(path).value();
  std::string names;
  for (const DirectoryEntry& entry : entries) absl::StrAppend(&names, entry.name);
  return names;
}

// What `observe` sees behind crashes of one history, over many seeds.
std::set<std::string> Outcomes(const std::function<void(SimulatedFileSystem*)>& history,
                               const std::function<std::string(SimulatedFileSystem*)>& observe) {
  std::set<std::string> outcomes;
  for (int seed = 0; seed < 300; ++seed) {
    SimulatedFileSystem files;
    history(&files);
    std::mt19937_64 random(seed);
    files.Crash(random);
    outcomes.insert(observe(&files));
  }
  return outcomes;
}

TEST(SimulatedFileSystemTest, ReadsWhatWasWrittenAndFailsAsPosixDoes) {
  SimulatedFileSystem files;
  EXPECT_THAT(files.CreateFile("/d/a"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/d/a")));
  ASSERT_OK(files.CreateDirectories("/d/e"));
  ASSERT_OK_AND_ASSIGN(auto file, files.CreateFile("/d/a"));
  ASSERT_OK(file->Reserve(4));
  ASSERT_OK(file->Append("12"));
  ASSERT_OK(file->Append("34"));
  ASSERT_OK(file->WriteAt(6, "7"));
  EXPECT_EQ(Read(&files, "/d/a"), std::string("1234\0\0"
                                              "7",
                                              7));
  EXPECT_EQ(files.used_bytes(), 7);
  EXPECT_THAT(files.CreateFile("/d/a"), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(files.RemoveDirectory("/d"), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(files.RemoveFile("/d/e"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(files.Rename("/d/a", "/d/e"), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(files.Rename("/d/a", "/d/e/b"));
  EXPECT_EQ(Names(&files, "/d"), "e");
  EXPECT_THAT(files.Exists("/d/e/b"), IsOkAndHolds(true));
  ASSERT_OK(RemoveTree(&files, "/d"));
  EXPECT_THAT(files.Exists("/d"), IsOkAndHolds(false));
}

TEST(SimulatedFileSystemTest, ACrashKeepsLosesOrTearsEachPageThatWasNotSynced) {
  const std::string old(2 * kPage, 'o');
  const std::string fresh(kPage, 'n');
  const auto outcomes = Outcomes(
      [&](SimulatedFileSystem* files) {
        auto file = files->CreateFile("/a").value();
        ASSERT_OK(file->Append(old));
        ASSERT_OK(file->Sync());
        ASSERT_OK(files->SyncDirectory("/"));
        ASSERT_OK(file->WriteAt(0, fresh));
        ASSERT_OK(file->WriteAt(2 * kPage, fresh));
      },
      [](SimulatedFileSystem* files) { return Read(files, "/a"); });
  std::set<std::string> first_pages;
  std::set<std::string> third_pages;
  for (const std::string& content : outcomes) {
    ASSERT_GE(content.size(), 2 * kPage);
    EXPECT_EQ(content.substr(kPage, kPage), old.substr(kPage)) << "a page that was not written";
    first_pages.insert(content.substr(0, kPage));
    third_pages.insert(content.substr(2 * kPage));
  }
  std::set<std::string> torn;
  std::set<std::string> torn_or_zeros = {"", std::string(kPage, '\0'), fresh};
  for (int64_t n = 0; n <= kPage; n += 512) {
    torn.insert(fresh.substr(0, n) + old.substr(0, kPage - n));
    torn_or_zeros.insert(fresh.substr(0, n));
    torn_or_zeros.insert(fresh.substr(0, n) + std::string(kPage - n, '\0'));
  }
  EXPECT_TRUE(first_pages == torn);
  EXPECT_TRUE(std::includes(torn_or_zeros.begin(), torn_or_zeros.end(), third_pages.begin(),
                            third_pages.end()));
  EXPECT_GT(third_pages.size(), 10u);
}

TEST(SimulatedFileSystemTest, ACrashKeepsAPrefixOfWhatWasDoneToNames) {
  const auto outcomes = Outcomes(
      [](SimulatedFileSystem* files) {
        ASSERT_OK(files->CreateDirectories("/d"));
        ASSERT_OK(WriteWholeFile(files, "/d/a", "a"));
        ASSERT_OK(files->SyncDirectory("/d"));
        ASSERT_OK(WriteWholeFile(files, "/d/b", "b"));
        ASSERT_OK(files->Rename("/d/b", "/d/c"));
        ASSERT_OK(files->RemoveFile("/d/a"));
      },
      [](SimulatedFileSystem* files) { return Names(files, "/d"); });
  EXPECT_THAT(outcomes, ElementsAre("a", "ab", "ac", "c"));
}

TEST(SimulatedFileSystemTest, WhatWasSyncedSurvivesEveryCrash) {
  const auto outcomes = Outcomes(
      [](SimulatedFileSystem* files) {
        ASSERT_OK(WriteWholeFile(files, "/a", "content"));
        ASSERT_OK(files->SyncDirectory("/"));
        ASSERT_OK(files->CreateDirectories("/d"));
        ASSERT_OK(files->Rename("/a", "/d/b"));
      },
      [](SimulatedFileSystem* files) {
        return absl::StrCat(Names(files, "/"), " ", Read(files, "/d/b"));
      });
  EXPECT_THAT(outcomes, ElementsAre("d content"));
}

TEST(SimulatedFileSystemTest, OneSeedIsOneOutcome) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::set<std::string> outcomes;
  for (int run = 0; run < 3; ++run) {
    SimulatedFileSystem files;
    for (int i = 0; i < 20; ++i) {
      ASSERT_OK_AND_ASSIGN(auto file, files.CreateFile(absl::StrCat("/", i)));
      ASSERT_OK(file->Append(std::string(i * 1000, 'x')));
    }
    std::mt19937_64 random(seed);
    files.Crash(random);
    std::string all = Names(&files, "/");
    for (int i = 0; i < 20; ++i) absl::StrAppend(&all, Read(&files, absl::StrCat("/", i)));
    outcomes.insert(all);
  }
  EXPECT_EQ(outcomes.size(), 1u);
}

TEST(SimulatedFileSystemTest, AFrozenProcessChangesNothingAndItsFilesStayDead) {
  SimulatedFileSystem files;
  ASSERT_OK_AND_ASSIGN(auto file, files.CreateFile("/a"));
  ASSERT_OK(file->Append("1"));
  files.FreezeAt(1);
  ASSERT_OK(file->Append("2"));
  EXPECT_THAT(file->Append("3"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(file->Sync(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(files.RemoveFile("/a"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(files.CreateFile("/b"), StatusIs(absl::StatusCode::kUnavailable));
  files.Restart();
  EXPECT_THAT(file->Append("3"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(Read(&files, "/a"), "12");
  EXPECT_OK(files.CreateFile("/b").status());
  files.Freeze();
  EXPECT_THAT(files.CreateFile("/c"), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(SimulatedFileSystemTest, ErrorsOnDemand) {
  SimulatedFileSystem files;
  ASSERT_OK_AND_ASSIGN(auto file, files.CreateFile("/a"));
  files.FailChange(1, absl::InternalError("broken"));
  EXPECT_OK(file->Append("1"));
  EXPECT_THAT(file->Append("2"), StatusIs(absl::StatusCode::kInternal, HasSubstr("broken")));
  EXPECT_OK(file->Append("3"));
  EXPECT_EQ(Read(&files, "/a"), "13");

  files.SetSyncError(absl::InternalError("no sync"));
  EXPECT_THAT(file->Sync(), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(files.SyncDirectory("/"), StatusIs(absl::StatusCode::kInternal));
  files.SetSyncError(absl::OkStatus());
  EXPECT_OK(file->Sync());

  files.SetLimit(5);
  EXPECT_THAT(file->Reserve(6), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(file->Append("4567"), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(Read(&files, "/a"), "13456");
  EXPECT_THAT(files.CreateFile("/b"), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_OK(file->WriteAt(0, "2")) << "what is there already can be written over";
  files.SetLimit(-1);
  EXPECT_OK(files.CreateFile("/b").status());
}

TEST(SimulatedFileSystemTest, ACloneIsACopyOfItsOwn) {
  SimulatedFileSystem files;
  ASSERT_OK(files.CreateDirectories("/d"));
  ASSERT_OK_AND_ASSIGN(auto file, files.CreateFile("/d/a"));
  ASSERT_OK(file->Append("1"));
  const auto clone = files.Clone();
  ASSERT_OK(file->Append("2"));
  ASSERT_OK(clone->RemoveFile("/d/a"));
  EXPECT_EQ(Read(&files, "/d/a"), "12");
  clone->Crash([] { return uint64_t{0}; });
  EXPECT_EQ(Read(clone.get(), "/d/a"), "1") << "the copy is durable, its removal was not";
}

}  // namespace
}  // namespace shardstep
