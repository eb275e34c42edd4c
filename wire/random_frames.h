// Random frames, and random cuts of bytes into pieces, for the tests of frames.
#ifndef SHARDSTEP_WIRE_RANDOM_FRAMES_H_
#define SHARDSTEP_WIRE_RANDOM_FRAMES_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "shardstep/v1/frame.pb.h"

namespace shardstep {

// Deterministic: one seed gives one sequence, with every library.
class RandomFrames {
 public:
  explicit RandomFrames(uint64_t seed) : engine_(seed) {}

  // Uniform enough for tests, in [0, limit).
  uint64_t Below(uint64_t limit) { return engine_() % limit; }
  std::string Bytes(size_t size);
  // A number of any magnitude.
  uint64_t Number() { return engine_() >> Below(64); }

  // A header of any kind, at times with default values, unknown enum values or no kind at all.
  v1::FrameHeader Header();
  // A Slices header and the payload that belongs to it.
  v1::FrameHeader SlicesHeader(std::string* payload);

  // Cuts into pieces of 0 to `longest` bytes (1 or more), which refer to `bytes`.
  std::vector<absl::string_view> Cut(absl::string_view bytes, size_t longest);

 private:
  std::mt19937_64 engine_;
};

// The pieces, one behind the other.
std::string Join(const std::vector<absl::string_view>& pieces);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_RANDOM_FRAMES_H_
