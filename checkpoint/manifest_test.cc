#include "shardstep/checkpoint/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "shardstep/checkpoint/sha256.h"
#include "shardstep/checkpoint/small_checkpoint.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kPath[] = "root/digits/1-7/manifest.json";

// With every kind of thing in it.
Manifest Full() {
  const Placement cpu = {1, "cpu"};
  const Placement gpu = {0, "cuda:1"};
  std::vector<ParameterShape> parameters = {
      {"whole", DType::kFloat32, {4, 3}, Whole{1, "cpu"}},
      {"chunk \"ä\"", DType::kFloat64, {5}, Chunk{-1, {gpu, cpu, cpu}}},
      {"enumerable", DType::kFloat32, {2}, Enumerable{{{{1}, {1}, cpu}, {{0}, {1}, gpu}}}},
      {"planned", DType::kFloat32, {}, std::nullopt},
      {"added", DType::kFloat32, {0, 2}, std::nullopt},
  };
  Manifest manifest = MakeManifest(MakeSmallModel(parameters, 2, 1), "1-7");
  manifest.definition.sharded[1] = true;
  manifest.definition.groups[0].params.pop_back();  // "added" came later, in its own group
  manifest.groups = manifest.definition.groups;
  manifest.groups.push_back({manifest.groups[0].options, {"added"}});
  manifest.groups[0].options.Set("lr", 1.0);
  manifest.groups[0].options.Set("eps", std::numeric_limits<double>::infinity());
  manifest.groups[0].options.Set("mine", OptionValue::List{1, "x"});
  manifest.definition.mode = Asynchronous(8);
  manifest.automatic = true;
  manifest.version = std::numeric_limits<uint64_t>::max();
  manifest.files = {{"shard-00000-of-00002.safetensors",
                     3 << 20,
                     std::string(64, 'a'),
                     1 << 20,
                     {1, 0xffffffff, 0}},
                    {"shard-00001-of-00002.safetensors", 5, std::string(64, '0'), 1 << 20, {7}}};
  return manifest;
}

// The text with `from` replaced, and a checksum that fits.
std::string Forged(const Manifest& manifest, const std::string& from, const std::string& to) {
  const std::string text = SerializeManifest(manifest);
  std::string body = text.substr(0, text.rfind(",\n\"sha256\""));
  EXPECT_THAT(body, HasSubstr(from));
  body = absl::StrReplaceAll(body, {{from, to}});
  return absl::StrCat(body, ",\n\"sha256\": \"", Sha256Hex(body).value(), "\"\n}\n");
}

void ExpectRefused(const std::string& from, const std::string& to, const std::string& what) {
  EXPECT_THAT(
      ParseManifest(Forged(Full(), from, to), kPath),
      StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(kPath), HasSubstr(what))))
      << from << " -> " << to;
}

TEST(ManifestTest, EverythingComesBack) {
  const Manifest full = Full();
  const std::string text = SerializeManifest(full);
  ASSERT_OK_AND_ASSIGN(const Manifest back, ParseManifest(text, kPath));
  EXPECT_EQ(SerializeManifest(back), text);

  EXPECT_EQ(back.optimizer, "digits");
  EXPECT_EQ(back.id, "1-7");
  EXPECT_TRUE(back.automatic);
  EXPECT_EQ(back.version, full.version);
  EXPECT_EQ(back.lineage, 5u);
  EXPECT_EQ(back.lineage_ordinal, 1u);
  EXPECT_EQ(back.parent_lineage, 3u);
  EXPECT_EQ(back.numeric_fingerprint, 0xfedcba98);
  EXPECT_OK(FirstDifference(full.definition, back.definition));
  EXPECT_EQ(back.groups, full.groups);
  EXPECT_EQ(back.plan.shards, full.plan.shards);
  EXPECT_EQ(back.plan.plan_id, full.plan.plan_id);
  ASSERT_EQ(back.states.size(), 5u);
  EXPECT_EQ(back.states[0].kind, StateSpec::Kind::kScalar);
  EXPECT_EQ(back.states[0].dtype, DType::kFloat32);
  EXPECT_EQ(back.states[1].kind, StateSpec::Kind::kLikeParameter);
  EXPECT_EQ(back.states[1].extent, Extent::kElement);
  EXPECT_EQ(back.states[3].extent, Extent::kRow);
  EXPECT_EQ(back.states[4].extent, Extent::kColumn);
  ASSERT_EQ(back.trainers.size(), 2u);
  EXPECT_EQ(back.trainers[0].session, 11u);
  EXPECT_EQ(back.trainers[0].last_call, 7u);
  EXPECT_EQ(back.trainers[0].trainer_state, std::string("\0\xff", 2));
  EXPECT_EQ(back.last_session, 12u);
  ASSERT_EQ(back.files.size(), 2u);
  EXPECT_EQ(back.files[0].crc32c, full.files[0].crc32c);
  EXPECT_EQ(back.files[1].bytes, 5);
}

TEST(ManifestTest, IsJsonForAnyReader) {
  ASSERT_OK_AND_ASSIGN(const Json json, ParseStrictJson(SerializeManifest(Full()), 1 << 20));
  EXPECT_EQ(json["version"], std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(json["groups"][0]["lr"], 1.0);
  EXPECT_EQ(json["groups"][0]["params"][0], "whole");
  EXPECT_EQ(json["files"][0]["crc32c"], "00000001ffffffff00000000");
}

TEST(ManifestTest, EveryPrefixIsRefused) {
  const std::string text = SerializeManifest(Full());
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(ParseManifest(absl::string_view(text).substr(0, size), kPath),
                StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(kPath), HasSubstr("bytes "))))
        << size;
  }
  EXPECT_THAT(ParseManifest(text + " ", kPath), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(ParseManifest(text + text, kPath), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(ManifestTest, EveryFlippedBitIsRefused) {
  std::string text = SerializeManifest(Full());
  for (size_t at = 0; at < text.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      text[at] = static_cast<char>(text[at] ^ (1 << bit));
      EXPECT_THAT(
          ParseManifest(text, kPath),
          StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(kPath), HasSubstr("bytes "))))
          << at << " bit " << bit;
      text[at] = static_cast<char>(text[at] ^ (1 << bit));
    }
  }
  EXPECT_OK(ParseManifest(text, kPath));
}

TEST(ManifestTest, UnknownMembersAreIgnored) {
  EXPECT_OK(ParseManifest(
      Forged(Full(), "\"automatic\":", "\"later\": {\"x\":[]},\n\"automatic\":"), kPath));
}

// Intact files of a writer that does not keep the rules.
TEST(ManifestTest, FieldsAreChecked) {
  ExpectRefused("shardstep.checkpoint", "other", "\"format\" is not");
  ExpectRefused("\"format_version\": 1", "\"format_version\": 2", "is 2, this program reads 1");
  ExpectRefused("\"optimizer\": \"digits\"", "\"optimizer\": \"../x\"", "optimizer name \"../x\"");
  ExpectRefused("\"id\": \"1-7\"", "\"id\": \"a/b\"", "checkpoint name \"a/b\"");
  ExpectRefused("\"automatic\": true", "\"automatic\": 1", "\"automatic\" is neither");
  ExpectRefused("\"lineage\": 5", "\"lineage\": NaN", "byte ");
  ExpectRefused("\"lineage\": 5", "\"lineage\": -5", "\"lineage\" is -5");
  ExpectRefused("\"lineage\": 5", "\"lineage\": 5.0", "\"lineage\" is 5.0");
  ExpectRefused("\"lineage\": 5", "\"lineage\": 99999999999999999999", "\"lineage\" is ");
  ExpectRefused("\"lineage\": 5", "\"line\": 5", "\"lineage\" is missing");
  ExpectRefused("\"lineage\": 5", "\"lineage\": 5, \"lineage\": 5", "stands twice");
  ExpectRefused("\"lineage\": 5", "\"lineage\": " + std::string(100000, '['),
                "nested more than 64");
  ExpectRefused("4275878552", "4294967296", "\"numeric_fingerprint\"");
  ExpectRefused("\"last_session\": 12", "\"last_session\": 11", "trainer rank 1 has session 12");
}

TEST(ManifestTest, DefinitionGroupsAndPlanAreChecked) {
  ExpectRefused("\"name\":\"digits\"", "\"name\":\"other\"", "is of optimizer \"other\"");
  ExpectRefused("\"kind\":\"AdamW\"", "\"kind\":\"Adame\"", "Adame");
  ExpectRefused("\"max_staleness\":8", "\"max_staleness\":-8", "mode: \"max_staleness\"");
  ExpectRefused("\"max_staleness\":8", "\"trainers\":0", "mode: \"trainers\" is 0");
  ExpectRefused("\"betas\":[0.9,0.999]", "\"betas\":[0.9,1.5]",
                "Invalid beta parameter at index 1");
  ExpectRefused("\"params\":[\"added\"]", "\"params\":[\"other\"]", "not among the parameters");
  ExpectRefused("\"params\":[\"added\"]", "\"params\":[]", "5 parameters, 4 of them in groups");
  ExpectRefused("\"params\":[\"added\"]", "\"params\":[\"whole\"]",
                "more than one parameter group");
  ExpectRefused("\"name\":\"planned\"", "\"name\":\"whole\"", "name appears twice");
  ExpectRefused("\"dtype\":\"float64\"", "\"dtype\":\"float65\"", "float65");
  ExpectRefused("\"shape\":[5]", "\"shape\":[6]", "parameter \"chunk");
  ExpectRefused("\"chunk\":-1", "\"chunk\":9", "\"chunk\"");
  ExpectRefused("{\"whole\":\"rank:1/cpu\"}", "{\"whole\":\"rank:x/cpu\"}", "parameter \"whole\"");
  ExpectRefused("[0,[0,0],[4,3],\"rank:1/cpu\"]", "[0,[0,0],[4,2],\"rank:1/cpu\"]",
                "plan: parameter \"whole\"");
  ExpectRefused("[0,[0,0],[4,3],\"rank:1/cpu\"]", "[7,[0,0],[4,3],\"rank:1/cpu\"]",
                "plan: parameter \"whole\"");
  ExpectRefused("{\"name\":\"exp_avg\"}", "{\"name\":\"exp.avg\"}", "state 1: \"name\"");
  ExpectRefused("{\"name\":\"exp_avg\"}", "{\"name\":\"step\"}", "state 1: \"name\"");
  ExpectRefused("\"extent\":\"row\"", "\"extent\":\"diagonal\"",
                "state 3: extent \"diagonal\": expected element");
}

TEST(ManifestTest, FilesAndTrainersAreChecked) {
  const std::string first = "\"shard-00000-of-00002.safetensors\"";
  ExpectRefused(first, "\"../../etc/passwd\"", "file 0: \"name\"");
  ExpectRefused(first, "\"shard-00001-of-00002.safetensors\"", "file 0: \"name\"");
  ExpectRefused("\"bytes\":3145728", "\"bytes\":9223372036854775808", "file 0: \"bytes\"");
  ExpectRefused("\"bytes\":3145728", "\"bytes\":9223372036854775807", "file 0: \"crc32c\"");
  ExpectRefused("\"bytes\":3145728", "\"bytes\":3145729", "file 0: \"crc32c\" is not 4 times");
  ExpectRefused("\"chunk_bytes\":1048576", "\"chunk_bytes\":0", "file 0: \"chunk_bytes\"");
  ExpectRefused("\"chunk_bytes\":1048576", "\"chunk_bytes\":1099511627776", "\"chunk_bytes\"");
  ExpectRefused("00000001ffffffff00000000", "00000001ffffffff0000000g", "file 0: \"crc32c\"");
  ExpectRefused(std::string(64, 'a'), std::string(64, 'A'), "file 0: \"sha256\"");
  ExpectRefused("\"trainer_rank\":1", "\"trainer_rank\":0", "is 0 a second time");
  ExpectRefused("\"trainer_state\":\"AP8=\"", "\"trainer_state\":\"?\"", "base64");
  ExpectRefused("\"trainer_state\":\"AP8=\"",
                absl::StrCat("\"trainer_state\":\"", std::string(87384, 'A'), "\""), "65536");
}

}  // namespace
}  // namespace shardstep
