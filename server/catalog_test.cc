#include "shardstep/server/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/simulated_file_system.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kDirectory[] = "/data";

v1::CatalogEntry Entry(const std::string& name, uint64_t version) {
  v1::CatalogEntry entry;
  entry.mutable_description()->mutable_definition()->set_name(name);
  entry.set_version(version);
  return entry;
}

v1::FenceEntry Fences(const std::string& name, uint64_t incarnation) {
  v1::FenceEntry fences;
  fences.set_optimizer(name);
  fences.set_coordinator_incarnation(incarnation);
  return fences;
}

class CatalogTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Catalog>> Open() { return Catalog::Open(&files_, kDirectory); }
  void Replace(const std::string& path, const std::string& content) {
    files_.RemoveFile(path).IgnoreError();
    ASSERT_OK(WriteWholeFile(&files_, path, content));
  }

  SimulatedFileSystem files_;
};

TEST_F(CatalogTest, IncarnationRisesWithEveryStart) {
  for (uint64_t start = 1; start <= 3; ++start) {
    ASSERT_OK_AND_ASSIGN(const auto catalog, Open());
    EXPECT_EQ(catalog->incarnation(), start);
  }
}

TEST_F(CatalogTest, EntriesAreFoundByTheNextStart) {
  {
    ASSERT_OK_AND_ASSIGN(const auto catalog, Open());
    ASSERT_OK(catalog->Write("a.b", Entry("a.b", 3)));
    ASSERT_OK(catalog->Write("a.b", Entry("a.b", 4)));
    ASSERT_OK(catalog->WriteFences("a.b", Fences("a.b", 7)));
    ASSERT_OK(catalog->Write("gone", Entry("gone", 1)));
    ASSERT_OK(catalog->WriteFences("gone", Fences("gone", 1)));
    ASSERT_OK(catalog->Remove("gone"));
    ASSERT_OK(catalog->Remove("never was"));
  }
  ASSERT_OK_AND_ASSIGN(const auto catalog, Open());
  ASSERT_EQ(catalog->found().size(), 1u);
  EXPECT_EQ(catalog->found().at("a.b").version(), 4u);
  ASSERT_EQ(catalog->fences().size(), 1u);
  EXPECT_EQ(catalog->fences().at("a.b").coordinator_incarnation(), 7u);
}

TEST_F(CatalogTest, DamagedFilesAreNamed) {
  ASSERT_OK(Open().status());
  for (const std::string folder : {"catalog", "fences"}) {
    for (const std::string& content :
         {std::string("garbage"), std::string(), Entry("other", 1).SerializeAsString(),
          Fences("other", 1).SerializeAsString()}) {
      const std::string path = absl::StrCat(kDirectory, "/", folder, "/m.pb");
      Replace(path, content);
      EXPECT_THAT(Open().status(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path)));
      ASSERT_OK(files_.RemoveFile(path));
    }
  }
  Replace(absl::StrCat(kDirectory, "/incarnation"), "seven");
  EXPECT_THAT(Open().status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("expected a number")));
}

TEST_F(CatalogTest, LogsAreListedAndSetAside) {
  {
    ASSERT_OK_AND_ASSIGN(const auto catalog, Open());
    EXPECT_THAT(catalog->logs(), IsEmpty());
    EXPECT_EQ(catalog->LogDirectory("m"), "/data/wal/m");
    ASSERT_OK(catalog->SetLogAside("m")) << "there is none";
  }
  for (const std::string name : {"m", "n", ".m"}) {
    ASSERT_OK(files_.CreateDirectories("/data/wal/" + name));
    ASSERT_OK(WriteWholeFile(&files_, absl::StrCat("/data/wal/", name, "/log-1"), name));
  }
  ASSERT_OK_AND_ASSIGN(const auto catalog, Open());
  EXPECT_THAT(catalog->logs(), ElementsAre("m", "n"));
  EXPECT_THAT(files_.Exists("/data/wal/.m"), IsOkAndHolds(false)) << "was being removed";
  for (const std::string aside : {"m-1", "m-2"}) {
    ASSERT_OK(files_.CreateDirectories("/data/wal/m"));
    ASSERT_OK(catalog->SetLogAside("m"));
    EXPECT_THAT(files_.Exists("/data/wal/m"), IsOkAndHolds(false));
    EXPECT_THAT(files_.Exists("/data/lost/" + aside), IsOkAndHolds(true));
  }
  EXPECT_THAT(ReadWholeFile(&files_, "/data/lost/m-1/log-1", 10), IsOkAndHolds("m"));
  ASSERT_OK_AND_ASSIGN(const auto next, Open());
  EXPECT_THAT(next->logs(), ElementsAre("n"));
}

// What is acknowledged is found by the next start, whenever the process or its machine dies; what
// was under way is found or not; nothing half-written is in the way.
TEST_F(CatalogTest, ADeathAtEveryChange) {
  for (int64_t at = 0;; ++at) {
    uint64_t acknowledged = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      SCOPED_TRACE(absl::StrCat("dies before change ", at, ", crash ", seed));
      const auto files = std::make_unique<SimulatedFileSystem>();
      ASSERT_OK_AND_ASSIGN(const auto first, Catalog::Open(files.get(), kDirectory));
      files->FreezeAt(at);
      uint64_t incarnation = first->incarnation();
      acknowledged = 0;
      for (uint64_t value = 1; value <= 3; ++value) {
        if (!first->Write("m", Entry("m", value)).ok()) break;
        if (!first->WriteFences("m", Fences("m", value)).ok()) break;
        acknowledged = value;
      }
      const bool removed = acknowledged == 3 && first->Remove("m").ok();
      // A start that is cut off as well.
      const auto second = Catalog::Open(files.get(), kDirectory);
      if (second.ok()) incarnation = (*second)->incarnation();
      std::mt19937_64 random(seed);
      if (seed == 0) files->Restart();
      if (seed > 0) files->Crash(random);

      ASSERT_OK_AND_ASSIGN(const auto last, Catalog::Open(files.get(), kDirectory));
      EXPECT_GT(last->incarnation(), incarnation);
      const auto entry = last->found().find("m");
      const auto fences = last->fences().find("m");
      if (acknowledged < 3) {
        ASSERT_TRUE(acknowledged == 0 || entry != last->found().end());
        ASSERT_TRUE(acknowledged == 0 || fences != last->fences().end());
        if (entry != last->found().end()) {
          EXPECT_GE(entry->second.version(), acknowledged);
        }
        if (fences != last->fences().end()) {
          EXPECT_GE(fences->second.coordinator_incarnation(), acknowledged);
        }
      }
      EXPECT_TRUE(!removed || (entry == last->found().end() && fences == last->fences().end()));
      ASSERT_OK(last->Write("m", Entry("m", 9)));
      ASSERT_OK(last->WriteFences("m", Fences("m", 9)));
      if (second.ok()) acknowledged = 4;
    }
    if (acknowledged == 4) break;
  }
}

TEST_F(CatalogTest, EveryErrorOfTheDiskIsReturnedAndTheNextAttemptWorks) {
  ASSERT_OK_AND_ASSIGN(const auto catalog, Open());
  for (int64_t at = 0;; ++at) {
    files_.FailChange(at, absl::ResourceExhaustedError("full"));
    const absl::Status written = catalog->Write("m", Entry("m", at));
    files_.FailChange(1000, absl::OkStatus());
    ASSERT_OK(catalog->Write("m", Entry("m", 1000 + at)));
    if (written.ok()) {
      EXPECT_GE(at, 4);
      break;
    }
    EXPECT_THAT(written,
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("/data/catalog")));
  }
}

}  // namespace
}  // namespace shardstep
