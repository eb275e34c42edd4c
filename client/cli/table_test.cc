#include "shardstep/client/cli/table.h"

#include "gtest/gtest.h"

namespace shardstep {
namespace {

TEST(TableTest, AlignsItsColumns) {
  Table table({"name", ">version", "state"});
  table.AddRow({"digits", "7", "live"});
  table.AddRow({"a", "12345678", "shards lost"});
  EXPECT_EQ(table.ToString(),
            "name     version  state\n"
            "digits         7  live\n"
            "a       12345678  shards lost\n");
}

TEST(TableTest, CountsCharactersNotBytes) {
  Table table({"n", "m"});
  table.AddRow({"\xC3\xA9\xC3\xA9", "x"});
  table.AddRow({"abc", "y"});
  EXPECT_EQ(table.ToString(), "n    m\n\xC3\xA9\xC3\xA9   x\nabc  y\n");
}

TEST(TableTest, HasNoBlanksAtTheEndOfALine) {
  Table table({"a", "b"});
  table.AddRow({"1"});
  EXPECT_EQ(table.ToString(), "a  b\n1\n");
}

TEST(TableTest, ShowsNoControlCharacters) {
  Table table({"a"});
  table.AddRow({"x\x1b[2Jy\n"});
  EXPECT_EQ(table.ToString(), "a\nx?[2Jy?\n");
}

TEST(FormatBytesTest, TakesTheLargestUnitThatFits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(3ull << 19), "1.5 MiB");
  EXPECT_EQ(FormatBytes(5ull << 40), "5.0 TiB");
  EXPECT_EQ(FormatBytes(~0ull), "16.0 EiB");
}

}  // namespace
}  // namespace shardstep
