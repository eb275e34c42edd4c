// Damaged frames against DecodeFrame. It must agree with protobuf on whatever it accepts, give one
// answer however the bytes are cut, read nothing outside them (run with --config=asan) and take no
// memory for what is only declared.

#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/random_frames.h"

namespace {
thread_local size_t largest_allocation = 0;
}  // namespace

// Not inlined: the compiler would warn of malloc and delete, or new and free, that do not belong
// together.
[[gnu::noinline]] void* operator new(size_t size) {
  largest_allocation = std::max(largest_allocation, size);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace shardstep {
namespace {

constexpr int kIterations = 200'000;

// Changes a few bytes, in the ways that hurt decoders.
void Damage(RandomFrames* random, std::string* bytes) {
  for (uint64_t i = random->Below(4); i > 0; --i) {
    const size_t at = random->Below(bytes->size() + 1);
    switch (random->Below(6)) {
      case 0:
        if (at < bytes->size()) (*bytes)[at] ^= 1 << random->Below(8);
        break;
      case 1:
        bytes->insert(at, random->Bytes(random->Below(8)));
        break;
      case 2:
        bytes->erase(at, random->Below(16));
        break;
      case 3:
        bytes->resize(at);
        break;
      case 4:  // a part once more, as a field that stands twice
        bytes->insert(at, bytes->substr(random->Below(bytes->size() + 1), random->Below(40)));
        break;
      default:  // a length that lies
        bytes->replace(at, random->Below(3), std::string(random->Below(10), '\xFF') + "\x7F");
    }
  }
}

// A frame damaged as a whole, or one whose header or payload was, under a checksum that is right.
std::string DamagedFrame(RandomFrames* random) {
  std::string payload;
  v1::FrameHeader header;
  if (random->Below(2) == 0) {
    header = random->SlicesHeader(&payload);
  } else {
    header = random->Header();
    payload = random->Bytes(random->Below(100));
  }
  if (random->Below(2) == 0) {
    std::string bytes = EncodeFramePrefix(header, {payload}).bytes + payload;
    Damage(random, &bytes);
    return bytes;
  }
  std::string encoded = header.SerializeAsString();
  Damage(random, random->Below(2) == 0 ? &encoded : &payload);
  // The encoding of a header is that of its unknown fields if it has no others.
  v1::FrameHeader damaged;
  if (!damaged.ParseFromString(encoded)) damaged = header;
  return EncodeFramePrefix(damaged, {payload}).bytes + payload;
}

void ExpectProtobufAgrees(const std::string& bytes, const FrameView& view) {
  v1::Frame frame;
  ASSERT_TRUE(frame.ParseFromString(bytes));
  EXPECT_EQ(frame.header().SerializeAsString(), view.header.SerializeAsString());
  EXPECT_EQ(frame.payload(), Join(view.payload));
  EXPECT_EQ(frame.crc32c(), view.crc32c);
}

// What the receiver does with an accepted frame: CheckSlices, then every body.
void ReadBodies(const FrameView& view) {
  if (!CheckSlices(view).ok()) return;
  PayloadReader reader(view);
  for (const v1::Slice& slice : view.header.slices().slices()) {
    if (slice.body() == v1::Slice::ZERO) continue;
    const size_t before = reader.remaining();
    ASSERT_LE(slice.count(), before);
    const bool rows = slice.body() == v1::Slice::ROWS;
    if (rows) {
      ASSERT_LE(slice.count() * 8, before);
      if (slice.count() > 0) {
        ASSERT_LE(slice.row_elements(), before);
      }
    }
    std::vector<char> element(16);
    for (uint64_t i = 0; i < slice.count(); ++i) {
      if (rows) reader.CopyTo(element.data(), 8);
      for (uint64_t j = 0; j < (rows ? slice.row_elements() : 1); ++j) {
        reader.CopyTo(element.data(), slice.dtype() == v1::FLOAT64 ? 8 : 4);
      }
    }
  }
}

TEST(FrameFuzzTest, SurvivesDamagedFrames) {
  const char* given = std::getenv("SHARDSTEP_FUZZ_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 20260101;
  std::cout << "seed " << seed << " (SHARDSTEP_FUZZ_SEED sets another)\n";
  // Names that are not UTF-8 give a line each.
  google::protobuf::SetLogHandler(nullptr);
  RandomFrames random(seed);
  int accepted = 0;
  int malformed = 0;
  int lost = 0;
  for (int i = 0; i < kIterations; ++i) {
    const std::string bytes = DamagedFrame(&random);
    SCOPED_TRACE(absl::CHexEscape(bytes));
    largest_allocation = 0;
    const absl::string_view one_piece[] = {bytes};
    const absl::StatusOr<FrameView> whole = DecodeFrame(one_piece);
    // A message, an element of a repeated field and a growing vector take a few times what encodes
    // them.
    ASSERT_LE(largest_allocation, 64 * bytes.size() + 1024);
    const absl::StatusOr<FrameView> cut = DecodeFrame(random.Cut(bytes, 1 + random.Below(30)));
    ASSERT_EQ(whole.status(), cut.status());
    if (whole.ok()) {
      ++accepted;
      ASSERT_NO_FATAL_FAILURE(ExpectProtobufAgrees(bytes, *whole));
      ASSERT_NO_FATAL_FAILURE(ExpectProtobufAgrees(bytes, *cut));
      ASSERT_NO_FATAL_FAILURE(ReadBodies(*cut));
    } else if (whole.status().code() == absl::StatusCode::kDataLoss) {
      ++lost;
    } else {
      ASSERT_THAT(whole, StatusIs(absl::StatusCode::kInvalidArgument));
      ++malformed;
    }
  }
  std::cout << accepted << " accepted, " << lost << " with a wrong checksum, " << malformed
            << " malformed\n";
  // The damage must be neither harmless nor total, or nothing was tested.
  EXPECT_GT(accepted, kIterations / 10);
  EXPECT_GT(lost, kIterations / 100);
  EXPECT_GT(malformed, kIterations / 100);
}

}  // namespace
}  // namespace shardstep
