// Sessions and definitions that must be refused.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/tests/bad_input.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"

namespace shardstep {
namespace {

using CoordinatorStub = v1::Coordinator::Stub;
using Definition = v1::OptimizerDefinition;

class BadDefinitionsTest : public BadInputTest {
 protected:
  static BadCall Session(std::string name, std::function<void(v1::OpenSessionRequest*)> change,
                         std::string words) {
    return {std::move(name),
            [change = std::move(change)] {
              v1::OpenSessionRequest request;
              request.mutable_header()->set_optimizer("candidate");
              request.set_instance("candidate");
              change(&request);
              return Call(trainer_->coordinator(), &CoordinatorStub::OpenSession, request).status();
            },
            kInvalid, std::move(words)};
  }

  static absl::Status Propose(const v1::Page& page) {
    RawTrainer candidate(*fleet_, "candidate", 0, "candidate");
    const absl::Status opened = candidate.Open();
    if (!opened.ok()) return opened;
    v1::ProposeRequest request;
    *request.mutable_header() = candidate.Header();
    *request.mutable_create() = page;
    return Call(candidate.coordinator(), &CoordinatorStub::Propose, request).status();
  }

  // A create of the healthy definition under another name, changed.
  static BadCall Create(std::string name, std::function<void(Definition*)> change,
                        std::string words) {
    return {std::move(name),
            [change = std::move(change)] {
              Definition definition = DefinitionToProto(trainer_->description().definition);
              definition.set_name("candidate");
              change(&definition);
              return Propose(PagedMessage(definition.SerializeAsString()).page(0).value());
            },
            kInvalid, std::move(words)};
  }

  static BadCall Page(std::string name, std::function<void(v1::Page*)> change, std::string words) {
    return {std::move(name),
            [change = std::move(change)] {
              v1::Page page = PagedMessage("not a definition").page(0).value();
              change(&page);
              return Propose(page);
            },
            kInvalid, std::move(words)};
  }
};

TEST_F(BadDefinitionsTest, Sessions) {
  using Request = v1::OpenSessionRequest;
  const auto region = [](std::vector<int64_t> offsets, std::vector<int64_t> sizes) {
    return [=](Request* request) {
      v1::DeclaredRegion* const declared = request->add_regions();
      declared->set_parameter("a");
      for (const int64_t offset : offsets) declared->mutable_region()->add_offsets(offset);
      for (const int64_t size : sizes) declared->mutable_region()->add_sizes(size);
    };
  };
  ExpectRefused({
      Session(
          "negative rank", [](Request* r) { r->set_trainer_rank(-1); }, "trainer rank -1"),
      Session(
          "large rank", [](Request* r) { r->set_trainer_rank(1 << 30); }, "trainer rank"),
      Session(
          "rank beyond the trainers",
          [](Request* r) {
            r->mutable_header()->set_optimizer("healthy");
            r->set_trainer_rank(1);
          },
          "trainer rank 1, expected 0 to 0"),
      Session(
          "no instance", [](Request* r) { r->clear_instance(); }, "instance"),
      Session(
          "long instance", [](Request* r) { r->set_instance(std::string(1000, 'x')); },
          "instance id of 1000 bytes"),
      Session(
          "no name", [](Request* r) { r->mutable_header()->clear_optimizer(); }, "optimizer"),
      Session(
          "a path", [](Request* r) { r->mutable_header()->set_optimizer("../up"); }, "../up"),
      Session(
          "a long name",
          [](Request* r) { r->mutable_header()->set_optimizer(std::string(129, 'x')); },
          "optimizer"),
      Session("negative region", region({0}, {-1}), ""),
      Session("overflowing region", region({INT64_MAX}, {2}), ""),
      Session("crooked region", region({0, 0}, {1}), ""),
      Session("region of nine dimensions",
              region(std::vector<int64_t>(9, 0), std::vector<int64_t>(9, 1)), ""),
  });
}

TEST_F(BadDefinitionsTest, Definitions) {
  const auto sizes = [](std::vector<int64_t> sizes) {
    return [=](Definition* d) {
      d->mutable_parameters(0)->clear_sizes();
      d->mutable_parameters(0)->clear_spec();
      for (const int64_t size : sizes) d->mutable_parameters(0)->add_sizes(size);
    };
  };
  const auto shards = [](std::vector<std::pair<int64_t, int64_t>> shards) {
    return [=](Definition* d) {
      auto* const spec = d->mutable_parameters(0)->mutable_spec()->mutable_enumerable();
      for (const auto& [offset, size] : shards) {
        v1::ShardMetadata* const shard = spec->add_shards();
        shard->mutable_region()->add_offsets(offset);
        shard->mutable_region()->add_sizes(size);
        shard->set_device("cpu");
      }
    };
  };
  ExpectRefused({
      Create(
          "another name", [](Definition* d) { d->set_name("other"); }, "\"other\""),
      Create(
          "unknown kind", [](Definition* d) { d->set_kind("Sgd"); }, "Sgd"),
      Create(
          "unknown option",
          [](Definition* d) {
            v1::Option* const option = d->add_defaults();
            option->set_name("foo");
            option->mutable_value()->set_double_value(1);
          },
          "SGD.__init__() got an unexpected keyword argument 'foo'"),
      Create(
          "negative lr",
          [](Definition* d) {
            for (v1::Option& option : *d->mutable_defaults()) {
              if (option.name() == "lr") option.mutable_value()->set_double_value(-1);
            }
          },
          "Invalid learning rate"),
      Create(
          "no mode", [](Definition* d) { d->clear_mode(); }, "mode"),
      Create(
          "no trainers",
          [](Definition* d) { d->mutable_mode()->mutable_synchronous()->set_trainers(0); },
          "0 trainers"),
      Create(
          "four billion trainers",
          [](Definition* d) { d->mutable_mode()->mutable_synchronous()->set_trainers(UINT32_MAX); },
          "trainers"),
      Create(
          "no groups", [](Definition* d) { d->clear_groups(); }, "empty parameter list"),
      Create(
          "parameter in two groups",
          [](Definition* d) { *d->add_groups() = v1::ParamGroup(d->groups(0)); },
          "more than one parameter group"),
      Create(
          "parameter in no group",
          [](Definition* d) { d->mutable_groups(0)->mutable_parameters()->RemoveLast(); },
          "2 parameters, 1 of them in groups"),
      Create(
          "group of unknown parameter",
          [](Definition* d) { d->mutable_groups(0)->set_parameters(0, 99); }, "parameter 99"),
      Create(
          "duplicate name", [](Definition* d) { d->mutable_parameters(1)->set_name("a"); },
          "name appears twice"),
      Create(
          "nameless", [](Definition* d) { d->mutable_parameters(1)->clear_name(); }, ""),
      Create(
          "int32", [](Definition* d) { d->mutable_parameters(0)->set_dtype(v1::INT32); }, "int32"),
      Create(
          "bfloat16 without a master",
          [](Definition* d) {
            d->mutable_parameters(0)->set_dtype(v1::BFLOAT16);
            d->mutable_parameters(0)->set_master(false);
          },
          "dtype bfloat16 with master=false, expected master=true"),
      Create(
          "unknown dtype",
          [](Definition* d) { d->mutable_parameters(0)->set_dtype(static_cast<v1::DType>(99)); },
          "99"),
      Create("negative size", sizes({-1}), "-1"),
      Create("overflowing sizes", sizes({INT64_MAX, 2}), "\"a\""),
      Create("overflow behind an empty dimension", sizes({0, INT64_MAX, INT64_MAX}), "\"a\""),
      Create("nine dimensions", sizes({1, 1, 1, 1, 1, 1, 1, 1, 1}), "9"),
      Create("overlapping shards", shards({{0, 4}, {3, 3}}), "overlap"),
      Create("incomplete shards", shards({{0, 4}, {4, 2}}), "\"a\""),
      Create("shards beyond the parameter", shards({{0, 4}, {4, 4}}), "\"a\""),
      Create("negative shard", shards({{-1, 8}}), "\"a\""),
      Create("overflowing shard", shards({{INT64_MAX, INT64_MAX}}), "\"a\""),
      Create(
          "server outside the fleet",
          [](Definition* d) {
            d->mutable_parameters(0)->mutable_spec()->mutable_whole()->set_server_rank(1);
          },
          "rank"),
      Create(
          "device that is not offered",
          [](Definition* d) {
            d->mutable_parameters(0)->mutable_spec()->mutable_whole()->set_device("cuda:0");
          },
          "cuda:0"),
      Create(
          "spec of no kind",
          [](Definition* d) { d->mutable_parameters(0)->mutable_spec()->clear_spec(); },
          "sharding spec"),
      Page(
          "no definition", [](v1::Page*) {}, "does not parse"),
      Page(
          "other bytes", [](v1::Page* p) { p->set_data("hello, world 123"); },
          "their bytes are those of"),
      Page(
          "no digest", [](v1::Page* p) { p->set_digest("x"); }, "digest"),
      Page(
          "no pages", [](v1::Page* p) { p->set_count(0); }, "expected 1 to"),
      Page(
          "four billion pages", [](v1::Page* p) { p->set_count(UINT32_MAX); }, "expected 1 to"),
      Page(
          "page behind the last", [](v1::Page* p) { p->set_index(1); }, "there are 1 pages"),
      Page(
          "huge message", [](v1::Page* p) { p->set_digest("00000000-99999999999999"); },
          "expected at most"),
  });
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
  EXPECT_THAT(client.Describe("candidate"), StatusIs(kNotFound));
}

TEST_F(BadDefinitionsTest, AParameterOfATebibyteIsRefusedAndAllocatesNothing) {
  const auto huge = [](int64_t rows) {
    return [=]() {
      Definition definition = DefinitionToProto(trainer_->description().definition);
      definition.set_name("candidate");
      definition.mutable_parameters(0)->clear_spec();
      definition.mutable_parameters(0)->set_sizes(0, rows);
      return Propose(PagedMessage(definition.SerializeAsString()).page(0).value());
    };
  };
  const int64_t before = ResidentBytes(fleet_->pid(0));
  ExpectRefused({
      {"a tebibyte", huge(int64_t{1} << 38), absl::StatusCode::kResourceExhausted,
       "left of --shard-memory"},
      {"eight exbibytes", huge(int64_t{1} << 61), kInvalid, "\"a\""},
  });
  EXPECT_LT(ResidentBytes(fleet_->pid(0)) - before, int64_t{8} << 20);
}

}  // namespace
}  // namespace shardstep
