#include "shardstep/server/catalog.h"

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

class CatalogTest : public ::testing::Test {
 protected:
  const std::string directory_ =
      ::testing::TempDir() + "/" + ::testing::UnitTest::GetInstance()->current_test_info()->name();

  static v1::CatalogEntry Entry(const std::string& name, uint64_t version) {
    v1::CatalogEntry entry;
    entry.mutable_description()->mutable_definition()->set_name(name);
    entry.set_version(version);
    return entry;
  }
};

TEST_F(CatalogTest, IncarnationRisesWithEveryStart) {
  for (uint64_t start = 1; start <= 3; ++start) {
    const auto catalog = Catalog::Open(directory_);
    ASSERT_OK(catalog.status());
    EXPECT_EQ((*catalog)->incarnation(), start);
  }
}

TEST_F(CatalogTest, SecondServerOnTheSameDirectoryIsRefused) {
  const auto first = Catalog::Open(directory_);
  ASSERT_OK(first.status());
  EXPECT_THAT(Catalog::Open(directory_).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(directory_)));
}

TEST_F(CatalogTest, EntriesAreFoundByTheNextStart) {
  {
    const auto catalog = Catalog::Open(directory_);
    ASSERT_OK((*catalog)->Write("a.b", Entry("a.b", 3)));
    ASSERT_OK((*catalog)->Write("a.b", Entry("a.b", 4)));
    ASSERT_OK((*catalog)->Write("gone", Entry("gone", 1)));
    ASSERT_OK((*catalog)->Remove("gone"));
    ASSERT_OK((*catalog)->Remove("never was"));
  }
  const auto catalog = Catalog::Open(directory_);
  ASSERT_OK(catalog.status());
  ASSERT_EQ((*catalog)->found().size(), 1u);
  EXPECT_EQ((*catalog)->found().at("a.b").version(), 4u);
}

TEST_F(CatalogTest, DamagedFilesAreNamed) {
  { ASSERT_OK(Catalog::Open(directory_).status()); }
  std::ofstream(directory_ + "/catalog/m.pb") << "garbage";
  EXPECT_THAT(Catalog::Open(directory_).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("m.pb")));
  std::filesystem::remove(directory_ + "/catalog/m.pb");
  std::ofstream(directory_ + "/incarnation") << "seven";
  EXPECT_THAT(Catalog::Open(directory_).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("expected a number")));
}

}  // namespace
}  // namespace shardstep
