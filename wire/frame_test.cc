#include "shardstep/wire/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/crc32c.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/random_frames.h"
#include "shardstep/wire/streaming_copy.h"

namespace shardstep {
namespace {

using testing::HasSubstr;

v1::Frame MakeFrame(const v1::FrameHeader& header, const std::string& payload) {
  v1::Frame frame;
  *frame.mutable_header() = header;
  frame.set_crc32c(Crc32c(header.SerializeAsString() + payload));
  frame.set_payload(payload);
  return frame;
}

std::string Encode(const v1::FrameHeader& header, const std::string& payload) {
  return EncodeFramePrefix(header, {payload}).bytes + payload;
}

// The view refers to `bytes`.
absl::StatusOr<FrameView> Decode(const std::string& bytes) {
  const absl::string_view pieces[] = {bytes};
  return DecodeFrame(pieces);
}

v1::FrameHeader OneSlice() {
  v1::FrameHeader header;
  v1::Slice* slice = header.mutable_slices()->add_slices();
  slice->set_shard(7);
  slice->set_count(2);
  slice->set_dtype(v1::FLOAT32);
  return header;
}

TEST(EncodeFramePrefixTest, GivesProtobufsBytes) {
  RandomFrames random(1);
  for (int i = 0; i < 5000; ++i) {
    const v1::FrameHeader header = random.Header();
    const std::string payload = random.Below(3) == 0 ? "" : random.Bytes(random.Below(2000));
    const FramePrefix prefix = EncodeFramePrefix(header, random.Cut(payload, 700));
    const v1::Frame frame = MakeFrame(header, payload);
    ASSERT_EQ(prefix.bytes + payload, frame.SerializeAsString()) << frame.DebugString();
    ASSERT_EQ(prefix.crc32c, frame.crc32c());
  }
}

// Four bytes behind `head` that make the CRC32C of all 0: the checksum run backwards.
std::string BytesToCrcZero(const std::string& head) {
  uint32_t state = 0xFFFFFFFF;
  for (int bit = 0; bit < 32; ++bit) {
    state = (state >> 31) != 0 ? (state ^ 0x82F63B78) << 1 | 1 : state << 1;
  }
  state ^= ~Crc32c(head);
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(state >> shift));
  return bytes;
}

TEST(EncodeFramePrefixTest, LeavesOutAChecksumOfZeroAsProtobufDoes) {
  const v1::FrameHeader header = OneSlice();
  const std::string payload = BytesToCrcZero(header.SerializeAsString());
  const v1::Frame frame = MakeFrame(header, payload);
  ASSERT_EQ(frame.crc32c(), 0u);
  const std::string bytes = frame.SerializeAsString();
  EXPECT_EQ(Encode(header, payload), bytes);
  ASSERT_OK_AND_ASSIGN(const FrameView view, Decode(bytes));
  EXPECT_EQ(Join(view.payload), payload);
}

TEST(DecodeFrameTest, ReadsPiecesOfAnyLengthsWithoutCopyingThePayload) {
  RandomFrames random(2);
  for (int i = 0; i < 5000; ++i) {
    const v1::FrameHeader header = random.Header();
    const std::string payload = random.Bytes(random.Below(3000));
    const std::string bytes = Encode(header, payload);
    ASSERT_OK_AND_ASSIGN(const FrameView view,
                         DecodeFrame(random.Cut(bytes, random.Below(2) == 0 ? 3 : 900)));
    ASSERT_EQ(view.header.SerializeAsString(), header.SerializeAsString());
    ASSERT_EQ(Join(view.payload), payload);
    ASSERT_EQ(view.payload_bytes, payload.size());
    ASSERT_EQ(view.crc32c, Crc32c(header.SerializeAsString() + payload));
    for (absl::string_view piece : view.payload) {
      ASSERT_TRUE(piece.data() >= bytes.data() && piece.data() < bytes.data() + bytes.size());
    }
  }
}

TEST(DecodeFrameTest, TakesAnyOrderAndSkipsUnknownFields) {
  const v1::FrameHeader header = OneSlice();
  const std::string payload = "12345678";
  const std::string encoded = header.SerializeAsString();
  const v1::Frame crc_only = [&] {
    v1::Frame frame;
    frame.set_crc32c(Crc32c(encoded + payload));
    return frame;
  }();
  const std::string fields[] = {
      absl::StrCat("\x0A", std::string(1, encoded.size()), encoded),
      crc_only.SerializeAsString(),
      "\x1A\x08" + payload,
      std::string("\x20\xAC\x02", 3),  // 4: varint
      "\x29"
      "12345678",  // 5: fixed64
      "\x35"
      "1234",                      // 6: fixed32
      "\x3A\x03xyz",               // 7: bytes
      std::string("\x08\x01", 2),  // 1, but a varint: unknown to protobuf, too
  };
  std::vector<int> order = {0, 1, 2, 3, 4, 5, 6, 7};
  do {
    std::string bytes;
    for (int i : order) bytes += fields[i];
    const absl::StatusOr<FrameView> view = Decode(bytes);
    ASSERT_OK(view);
    ASSERT_EQ(Join(view->payload), payload);
    ASSERT_EQ(view->header.SerializeAsString(), encoded);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(DecodeFrameTest, AnyFlippedBitIsAnError) {
  const v1::FrameHeader header = OneSlice();
  const std::string bytes = Encode(header, "12345678");
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] ^= 1 << bit % 8;
    EXPECT_FALSE(Decode(damaged).ok()) << "bit " << bit;
  }
  std::string damaged = bytes;
  damaged.back() ^= 1;
  EXPECT_THAT(Decode(damaged), StatusIs(absl::StatusCode::kDataLoss,
                                        HasSubstr("frame of 8 bytes of payload: CRC32C is ")));
}

TEST(DecodeFrameTest, RefusesWhatIsMalformed) {
  const std::string whole = Encode(OneSlice(), "12345678");
  const std::string crc = absl::StrCat("\x15", std::string(4, '\0'));
  const struct {
    std::string bytes;
    const char* what;
  } cases[] = {
      {whole + std::string("\x0A\x00", 2), "two headers"},
      {whole + "\x15"
               "1234",
       "two checksums"},
      {whole + std::string("\x1A\x00", 2), "two payloads"},
      {whole.substr(0, whole.size() - 1), "payload of 8 bytes, only 7 follow"},
      {"\x0A\x05"
       "1234",
       "header of 5 bytes, only 4 follow"},
      {"\x0A", "ends within a number"},
      {"\x15"
       "123",
       "ends within its checksum"},
      {std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", 11), "more than 64 bits"},
      {std::string(11, '\x80'), "more than 64 bits"},
      {std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11),
       "header of 18446744073709551615 bytes, expected at most 262144"},
      {"\x1A\x81\x80\x40", "payload of 1048577 bytes, expected at most 1048576"},
      {std::string("\x02\x00", 2), "tag 2"},
      {std::string("\xF8\xFF\xFF\xFF\x7F\x00", 6), "tag"},
      {"\x23\x24", "wire type 3"},
      {"\x29"
       "1234567",
       "ends within an unknown field"},
      {"\x3A\x04xyz", "unknown field of 4 bytes"},
      {"\x0A\x02\x12\x05" + std::string("\x15\x2E\x6C\x5D\x64", 5), ""},
      {crc, "no header"},
      {"", "no header"},
  };
  for (const auto& c : cases) {
    const absl::StatusOr<FrameView> view = Decode(c.bytes);
    EXPECT_FALSE(view.ok()) << c.what;
    if (*c.what == '\0') continue;
    EXPECT_THAT(view, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.what)));
  }
}

TEST(DecodeFrameTest, RefusesAHeaderThatIsNoFrameHeader) {
  const std::string header = "\x12\x05";  // a Slices of 5 bytes that are not there
  const v1::Frame crc = [&] {
    v1::Frame frame;
    frame.set_crc32c(Crc32c(header));
    return frame;
  }();
  EXPECT_THAT(Decode("\x0A\x02" + header + crc.SerializeAsString()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "malformed frame: its header is no FrameHeader"));
}

TEST(DecodeFrameTest, LimitsAreInclusive) {
  EXPECT_OK(Decode(Encode(OneSlice(), std::string(kMaxFramePayloadBytes, 'x'))));
  EXPECT_THAT(Decode(Encode(OneSlice(), std::string(kMaxFramePayloadBytes + 1, 'x'))),
              StatusIs(absl::StatusCode::kInvalidArgument));
  v1::FrameHeader header;
  header.mutable_end()->set_touched(std::string(kMaxFrameHeaderBytes - 8, 'x'));
  ASSERT_EQ(header.ByteSizeLong(), kMaxFrameHeaderBytes);
  EXPECT_OK(Decode(Encode(header, "")));
  header.mutable_end()->mutable_touched()->push_back('x');
  EXPECT_THAT(Decode(Encode(header, "")), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(FrameDigestTest, IsFnv1aOverTheChecksumsInOrder) {
  FrameDigest digest;
  EXPECT_EQ(digest.value(), 0xcbf29ce484222325u);
  digest.Add(0x01020304);
  EXPECT_EQ(digest.value(), 0xb345225e3644edb5u);
  digest.Add(0xe3069283);
  EXPECT_EQ(digest.value(), 0x6a0239da6c2f6953u);

  FrameDigest swapped;
  swapped.Add(0xe3069283);
  swapped.Add(0x01020304);
  EXPECT_NE(swapped.value(), digest.value());
}

TEST(PayloadReaderTest, ElementsStraddlePieces) {
  RandomFrames random(3);
  for (int i = 0; i < 2000; ++i) {
    const std::string bytes = random.Bytes(random.Below(500));
    FrameView frame;
    frame.payload = random.Cut(bytes, 9);
    frame.payload_bytes = bytes.size();
    PayloadReader reader(frame);
    size_t at = 0;
    while (reader.remaining() > 0) {
      ASSERT_EQ(reader.remaining(), bytes.size() - at);
      const size_t want = std::min<size_t>(random.Below(20), reader.remaining());
      if (random.Below(3) == 0) {
        reader.Skip(want);
        at += want;
      } else if (random.Below(2) == 0) {
        const absl::string_view part = reader.Take(20);
        ASSERT_FALSE(part.empty());
        ASSERT_EQ(part, absl::string_view(bytes).substr(at, part.size()));
        at += part.size();
      } else {
        std::string copy(want, '\0');
        reader.CopyTo(copy.data(), want);
        ASSERT_EQ(copy, bytes.substr(at, want));
        at += want;
      }
    }
    ASSERT_EQ(at, bytes.size());
    EXPECT_EQ(reader.Take(1), "");
  }
}

TEST(PayloadReaderTest, CopiesTheSamePastTheCaches) {
  std::string bytes(5 * kShortestStreamBytes, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 256);
  const absl::string_view whole = bytes;
  FrameView frame;
  frame.payload = {whole.substr(0, 5001), whole.substr(5001, 100), whole.substr(5101)};
  PayloadReader reader(frame);
  std::string copy(bytes.size() + 1, '#');
  reader.Skip(3);
  reader.CopyTo(&copy[3], 9000, kPastCachesBytes);
  reader.CopyTo(&copy[9003], bytes.size(), kPastCachesBytes);
  EXPECT_EQ(copy, absl::StrCat("###", whole.substr(3), "#"));
}

TEST(PayloadReaderTest, NeverReadsBeyondTheEnd) {
  FrameView frame;
  frame.payload = {"ab", "c"};
  frame.payload_bytes = 3;
  PayloadReader reader(frame);
  std::string copy = "......";
  reader.CopyTo(copy.data(), 6);
  EXPECT_EQ(copy, "abc...");
  reader.Skip(5);
  EXPECT_EQ(reader.remaining(), 0u);
}

FrameView WithPayloadOf(const v1::FrameHeader& header, size_t bytes) {
  FrameView frame;
  frame.header = header;
  frame.payload_bytes = bytes;
  return frame;
}

TEST(CheckSlicesTest, SumsTheBodies) {
  v1::FrameHeader header = OneSlice();  // 2 float32
  EXPECT_OK(CheckSlices(WithPayloadOf(header, 8)));
  v1::Slice* slice = header.mutable_slices()->add_slices();
  slice->set_dtype(v1::COMPLEX128);
  slice->set_count(3);
  EXPECT_OK(CheckSlices(WithPayloadOf(header, 8 + 48)));
  slice->set_body(v1::Slice::ZERO);
  slice->set_count(std::numeric_limits<uint64_t>::max());
  EXPECT_OK(CheckSlices(WithPayloadOf(header, 8)));
  EXPECT_OK(CheckSlices(WithPayloadOf(v1::FrameHeader(), 0)));
  v1::Slice* rows = header.mutable_slices()->add_slices();
  rows->set_dtype(v1::FLOAT64);
  rows->set_body(v1::Slice::ROWS);
  rows->set_count(5);
  rows->set_row_elements(3);
  EXPECT_OK(CheckSlices(WithPayloadOf(header, 8 + 5 * (8 + 3 * 8))));
  rows->set_count(0);
  EXPECT_THAT(
      CheckSlices(WithPayloadOf(header, 9)),
      StatusIs(absl::StatusCode::kInvalidArgument, "frame has 9 bytes of payload, its slices 8"));
}

TEST(CheckSlicesTest, RefusesOverflowsAndUnknownValues) {
  v1::FrameHeader header = OneSlice();
  v1::Slice* slice = header.mutable_slices()->mutable_slices(0);
  slice->set_count(uint64_t{1} << 62);  // times 4 is 0 in 64 bits
  EXPECT_THAT(CheckSlices(WithPayloadOf(header, 0)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "slice 0 of the frame (shard 7): 4611686018427387904 elements of 4 bytes "
                       "reach beyond the payload of 0 bytes"));
  slice->set_count(3);
  EXPECT_THAT(CheckSlices(WithPayloadOf(header, 8)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "slice 0 of the frame (shard 7): 3 elements of 4 bytes reach beyond the "
                       "payload of 8 bytes"));
  slice->set_count(2);
  slice->set_body(v1::Slice::ENCODED);
  EXPECT_THAT(CheckSlices(WithPayloadOf(header, 8)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("body 3, expected DENSE")));
  slice->set_body(static_cast<v1::Slice::Body>(77));
  EXPECT_THAT(CheckSlices(WithPayloadOf(header, 8)), StatusIs(absl::StatusCode::kInvalidArgument));
  slice->set_body(v1::Slice::ROWS);
  slice->set_row_elements(1);
  EXPECT_THAT(
      CheckSlices(WithPayloadOf(header, 8)),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "slice 0 of the frame (shard 7): 2 rows of 12 bytes reach beyond the payload "
               "of 8 bytes"));
  slice->set_count(uint64_t{1} << 62);
  EXPECT_THAT(CheckSlices(WithPayloadOf(header, 0)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("reach beyond")));
  for (const uint64_t elements : {uint64_t{1} << 62, std::numeric_limits<uint64_t>::max() / 4}) {
    slice->set_row_elements(elements);
    EXPECT_THAT(CheckSlices(WithPayloadOf(header, 8)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rows of ")));
  }
  for (int dtype : {0, -1, 13, 256 + 1}) {
    slice->set_body(v1::Slice::ZERO);
    slice->set_dtype(static_cast<v1::DType>(dtype));
    EXPECT_THAT(CheckSlices(WithPayloadOf(header, 0)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("unknown dtype")));
  }
}

}  // namespace
}  // namespace shardstep
