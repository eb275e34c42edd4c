// Frames that must be refused: of pushes and of writes, and bytes that are no frames.

#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/bad_input.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/status.h"

namespace shardstep {
namespace {

using Frames = std::vector<v1::Frame>;

class BadFramesTest : public BadInputTest {
 protected:
  // NextPush() is begin, the slices of "a", those of "b", end.
  static constexpr int kBegin = 0, kSlices = 1, kEnd = 3;

  static BadCall Push(std::string name, std::function<void(Frames*)> change, absl::StatusCode code,
                      std::string words, v1::Reason reason = v1::REASON_UNSPECIFIED) {
    return {std::move(name),
            [change = std::move(change)] {
              Frames frames = NextPush();
              change(&frames);
              return trainer_->SendPush(0, frames);
            },
            code, std::move(words), reason};
  }

  // Changes the header of one frame, or its payload too, and makes the checksum anew.
  static std::function<void(Frames*)> Header(int frame,
                                             std::function<void(v1::FrameHeader*)> change) {
    return [=](Frames* frames) {
      v1::FrameHeader header = (*frames)[frame].header();
      change(&header);
      (*frames)[frame] = MakeFrame(header, (*frames)[frame].payload());
    };
  }
  static std::function<void(Frames*)> Begin(std::function<void(v1::Begin*)> change) {
    return Header(kBegin, [=](v1::FrameHeader* header) { change(header->mutable_begin()); });
  }
  static std::function<void(Frames*)> Slice(std::function<void(v1::Slice*)> change) {
    return Header(kSlices, [=](v1::FrameHeader* header) {
      change(header->mutable_slices()->mutable_slices(0));
    });
  }
  static std::function<void(Frames*)> End(std::function<void(v1::End*)> change) {
    return Header(kEnd, [=](v1::FrameHeader* header) { change(header->mutable_end()); });
  }

  // What a method answers to a message of these bytes.
  static absl::Status SendBytes(const std::string& method, const std::string& bytes) {
    grpc::GenericStub stub(trainer_->channel(0));
    grpc::CompletionQueue queue;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    const auto call = stub.PrepareUnaryCall(&context, "/shardstep.v1." + method, request, &queue);
    call->StartCall();
    grpc::ByteBuffer reply;
    grpc::Status status;
    call->Finish(&reply, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return FromGrpcStatus(status);
  }
};

TEST_F(BadFramesTest, BeginsOfAPush) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  ExpectRefused({
      Push("unknown optimizer",
           Begin([](v1::Begin* b) { b->mutable_header()->set_optimizer("heathly"); }), kNotFound,
           "did you mean \"healthy\"", v1::NO_OPTIMIZER),
      Push("another lineage", Begin([](v1::Begin* b) { b->mutable_header()->set_lineage(999); }),
           kPrecondition, "lineage 999", v1::ROLLED_BACK),
      Push("another plan", Begin([](v1::Begin* b) { b->mutable_header()->set_plan_id("none"); }),
           kPrecondition, "plan none", v1::PLAN_CHANGED),
      Push("another incarnation",
           Begin([](v1::Begin* b) { b->mutable_header()->set_incarnation(999); }), kPrecondition,
           "incarnation 999", v1::INCARNATION),
      Push("no session", Begin([](v1::Begin* b) { b->mutable_header()->set_session(0); }),
           kPrecondition, "session 0", v1::FENCED),
      Push("session that is not known yet",
           Begin([](v1::Begin* b) { b->mutable_header()->set_session(UINT64_MAX); }),
           absl::StatusCode::kUnavailable, "is not known to this server yet"),
      Push("no sequence", Begin([](v1::Begin* b) { b->mutable_header()->set_sequence(0); }),
           kInvalid, "sequence"),
      Push("no weight", Begin([](v1::Begin* b) { b->set_weight(0); }), kInvalid, "weight 0"),
      Push("negative weight", Begin([](v1::Begin* b) { b->set_weight(-1); }), kInvalid, "weight"),
      Push("weight that is no number", Begin([=](v1::Begin* b) { b->set_weight(kNan); }), kInvalid,
           "weight"),
  });
}

TEST_F(BadFramesTest, SlicesOfAPush) {
  const auto set = [](auto method, auto value) {
    return Slice([=](v1::Slice* slice) { (slice->*method)(value); });
  };
  ExpectRefused({
      Push("unknown shard", set(&v1::Slice::set_shard, 99u), kInvalid, "the plan has 2 shards"),
      Push("offset behind the end", set(&v1::Slice::set_offset, uint64_t{1}), kInvalid,
           "the shard has 7 elements"),
      Push("overflowing offset", set(&v1::Slice::set_offset, UINT64_MAX), kInvalid,
           "the shard has 7 elements"),
      Push("count above the payload", set(&v1::Slice::set_count, uint64_t{8}), kInvalid, ""),
      Push("overflowing count", set(&v1::Slice::set_count, UINT64_MAX), kInvalid, ""),
      Push("count below the payload", set(&v1::Slice::set_count, uint64_t{6}), kInvalid, ""),
      Push("zeros with a payload", set(&v1::Slice::set_body, v1::Slice::ZERO), kInvalid, ""),
      Push("a body that is not accepted", set(&v1::Slice::set_body, v1::Slice::ENCODED), kInvalid,
           ""),
      Push("an unknown body", set(&v1::Slice::set_body, static_cast<v1::Slice::Body>(77)), kInvalid,
           ""),
      Push("optimizer state", set(&v1::Slice::set_tensor, 1u), kInvalid,
           "tensor 1, expected at most 0"),
      Push("unknown dtype", set(&v1::Slice::set_dtype, static_cast<v1::DType>(77)), kInvalid, ""),
      Push(
          "another dtype",
          [](Frames* frames) {
            v1::FrameHeader header = (*frames)[kSlices].header();
            header.mutable_slices()->mutable_slices(0)->set_dtype(v1::FLOAT64);
            (*frames)[kSlices] = MakeFrame(header, std::string(7 * sizeof(double), 'x'));
          },
          kInvalid, "expected dtype float32"),
      Push(
          "the same elements twice",
          [](Frames* frames) { frames->insert(frames->begin() + kSlices, (*frames)[kSlices]); },
          kInvalid, "overlaps elements that arrived before"),
      Push(
          "zeros for all elements there can be",
          [](Frames* frames) {
            v1::FrameHeader header = (*frames)[kSlices].header();
            v1::Slice* const slice = header.mutable_slices()->mutable_slices(0);
            slice->set_body(v1::Slice::ZERO);
            slice->set_count(UINT64_MAX / 8);
            (*frames)[kSlices] = MakeFrame(header);
          },
          kInvalid, ""),
  });
}

// Slices of rows in place of those of "a", which has 7 rows of one element.
TEST_F(BadFramesTest, RowsOfAPush) {
  struct Rows {
    std::vector<int64_t> numbers = {3};
    size_t elements = 1;
    uint64_t count = 1;
    uint64_t offset = 0;
    uint64_t row_elements = 1;
  };
  const auto rows = [](std::string name, const Rows& given, std::string words) {
    return Push(
        std::move(name),
        [given](Frames* frames) {
          v1::FrameHeader header = (*frames)[kSlices].header();
          v1::Slice* const slice = header.mutable_slices()->mutable_slices(0);
          slice->set_body(v1::Slice::ROWS);
          slice->set_count(given.count);
          slice->set_offset(given.offset);
          slice->set_row_elements(given.row_elements);
          std::string payload(reinterpret_cast<const char*>(given.numbers.data()),
                              given.numbers.size() * sizeof(int64_t));
          payload.append(given.elements * sizeof(float), 'x');
          (*frames)[kSlices] = MakeFrame(header, payload);
        },
        kInvalid, std::move(words));
  };
  const std::vector<int64_t> eight(8, 1);
  ExpectRefused({
      rows("a row behind the last", {{7}}, "row 7, the shard has 7 rows"),
      rows("a negative row", {{-1}}, "row -1, the shard has 7 rows"),
      rows("the lowest row", {{INT64_MIN}}, "the shard has 7 rows"),
      rows("rows of another width", {{3}, 2, 1, 0, 2}, "expected rows of 1 elements, got 2"),
      rows("an offset", {{3}, 1, 1, 1, 1}, "expected offset 0, got 1"),
      rows("more rows than there are", {eight, 8, 8}, "the shard has 7 rows, 0 have come"),
      rows("rows above the payload", {{3}, 1, 2}, "reach beyond the payload"),
      rows("an overflowing count", {{3}, 1, UINT64_MAX}, "reach beyond the payload"),
      rows("an overflowing width", {{3}, 1, 1, 0, UINT64_MAX}, "rows of "),
      rows("numbers alone", {{3}, 0}, "reach beyond the payload"),
      Push("an end with rows of a whole gradient",
           End([](v1::End* e) { e->set_rows(std::string(1, 1)); }), kInvalid,
           "this gradient consists of rows"),
      Push("an end with rows that it does not touch",
           End([](v1::End* e) { e->set_rows(std::string(1, 4)); }), kInvalid,
           "rows of parameter 2, which the push does not touch"),
  });
}

TEST_F(BadFramesTest, EndsOfAPush) {
  ExpectRefused({
      Push(
          "incomplete coverage",
          [](Frames* frames) {
            v1::FrameHeader header = (*frames)[kSlices].header();
            header.mutable_slices()->mutable_slices(0)->set_count(6);
            *frames = {(*frames)[kBegin], MakeFrame(header, std::string(24, 'x')), (*frames)[kEnd]};
            FrameDigest digest;
            digest.Add((*frames)[1].crc32c());
            v1::FrameHeader end = (*frames)[2].header();
            end.mutable_end()->set_frames(1);
            end.mutable_end()->set_digest(digest.value());
            end.mutable_end()->set_touched(std::string(1, 1));
            (*frames)[2] = MakeFrame(end);
          },
          kInvalid, "6 elements arrived, expected 7"),
      Push(
          "touches what did not come",
          [](Frames* frames) {
            *frames = trainer_->PushFrames(0, steps_ + 1, {{"a", 1}});
            v1::FrameHeader end = frames->back().header();
            end.mutable_end()->set_touched(std::string(1, 3));
            frames->back() = MakeFrame(end);
          },
          kInvalid, "0 elements arrived, expected 5"),
      Push("does not touch what came", End([](v1::End* e) { e->set_touched(std::string(1, 1)); }),
           kInvalid, "parameter \"b\""),
      Push("touches what there is not",
           End([](v1::End* e) { e->set_touched(std::string(1, '\xff')); }), kInvalid,
           "touches parameter 2"),
      Push("frames that were lost", End([](v1::End* e) { e->set_frames(3); }), kDataLoss,
           "counted 3 frames, 2 arrived"),
      Push("another digest", End([](v1::End* e) { e->set_digest(1); }), kDataLoss, "digest"),
  });
}

TEST_F(BadFramesTest, FramesOutOfOrderEndTheStream) {
  ExpectRefused({
      Push(
          "slices first", [](Frames* frames) { frames->erase(frames->begin()); }, kInvalid,
          "slices outside a push"),
      Push(
          "end first", [](Frames* frames) { *frames = {(*frames)[kEnd]}; }, kInvalid,
          "end outside a push"),
      Push(
          "two begins", [](Frames* frames) { (*frames)[kSlices] = (*frames)[kBegin]; }, kInvalid,
          "before push"),
      Push("a frame of a write",
           Header(kBegin, [](v1::FrameHeader* header) { header->mutable_write_begin(); }), kInvalid,
           "in a stream of gradients"),
      Push("no kind", Header(kSlices, [](v1::FrameHeader* header) { header->Clear(); }), kInvalid,
           ""),
      Push(
          "another checksum",
          [](Frames* frames) { (*frames)[kSlices].set_crc32c((*frames)[kSlices].crc32c() ^ 1); },
          kDataLoss, ""),
      Push(
          "a flipped bit",
          [](Frames* frames) { (*(*frames)[kSlices].mutable_payload())[3] ^= 0x40; }, kDataLoss,
          ""),
      Push(
          "a payload above the limit",
          [](Frames* frames) {
            (*frames)[kSlices] =
                MakeFrame((*frames)[kSlices].header(), std::string((1 << 20) + 1, 'x'));
          },
          kInvalid, ""),
  });
}

TEST_F(BadFramesTest, BytesThatAreNoFrames) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937_64 random(seed);
  const auto refused = [](const std::string& method, const std::string& bytes) {
    const absl::Status status = SendBytes(method, bytes);
    EXPECT_THAT(status, StatusIs(testing::AnyOf(kInvalid, kDataLoss))) << method;
  };
  const std::string frame = NextPush()[kBegin].SerializeAsString();
  // A payload that says to be of a tebibyte, and is not there.
  const std::string huge = frame + "\x1a\x80\x80\x80\x80\x80\x20";
  for (const char* const method : {"Shards/PushGradients", "Shards/WriteState"}) {
    refused(method, huge);
    for (size_t size = 1; size < frame.size(); size += 5) refused(method, frame.substr(0, size));
    for (int i = 0; i < 50; ++i) {
      std::string bytes(1 + random() % 2000, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random());
      refused(method, bytes);
    }
  }
  // Typed calls and reads: gRPC's own status for what does not parse.
  for (const char* const method : {"Shards/ReadState", "Coordinator/Step", "Coordinator/Propose"}) {
    EXPECT_FALSE(SendBytes(method, std::string(100, '\xff')).ok()) << method;
  }
  // Above what a server reads.
  EXPECT_FALSE(SendBytes("Shards/PushGradients", std::string(5 << 20, 'x')).ok());
  ExpectHealthy();
}

TEST_F(BadFramesTest, Writes) {
  const auto write = [](std::vector<v1::Frame> frames) {
    return [frames = std::move(frames)] {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
      v1::WriteStateReply reply;
      const auto writer = trainer_->shards(0).WriteState(&context, &reply);
      for (const v1::Frame& frame : frames) {
        if (!writer->Write(frame)) break;
      }
      writer->WritesDone();
      return FromGrpcStatus(writer->Finish());
    };
  };
  v1::FrameHeader begin;
  *begin.mutable_write_begin()->mutable_header() = trainer_->Header();
  begin.mutable_write_begin()->set_staging(999);
  v1::FrameHeader elsewhere = begin;
  elsewhere.mutable_write_begin()->mutable_header()->set_optimizer("heathly");
  ExpectRefused({
      {"nothing", write({}), kInvalid, "broke off"},
      {"no begin", write({NextPush()[kSlices]}), kInvalid, "a write starts with its begin"},
      {"unknown staging", write({MakeFrame(begin)}), kAborted, "staging 999"},
      {"unknown optimizer", write({MakeFrame(elsewhere)}), kNotFound, "heathly", v1::NO_OPTIMIZER},
  });
}

}  // namespace
}  // namespace shardstep
