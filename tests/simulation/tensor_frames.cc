#include "shardstep/tests/simulation/tensor_frames.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

TensorFrames MakeTensorFrames(const Layout& layout, const std::vector<std::vector<float>>& values,
                              int pieces) {
  TensorFrames made;
  FrameDigest digest;
  for (const LocalShardInfo& shard : layout.local) {
    const float* const data = values[shard.parameter].data() + shard.region.offsets[0];
    const int64_t longest = (shard.elements + pieces - 1) / pieces;
    for (int64_t begin = 0; begin < shard.elements; begin += longest) {
      const int64_t count = std::min(longest, shard.elements - begin);
      v1::FrameHeader header;
      v1::Slice* const slice = header.mutable_slices()->add_slices();
      slice->set_shard(shard.shard);
      slice->set_offset(begin);
      slice->set_count(count);
      slice->set_dtype(v1::FLOAT32);
      const absl::string_view payload(reinterpret_cast<const char*>(data + begin),
                                      count * sizeof(float));
      const FramePrefix prefix = EncodeFramePrefix(header, {payload});
      digest.Add(prefix.crc32c);
      made.frames.push_back(absl::StrCat(prefix.bytes, payload));
    }
  }
  made.end.set_frames(made.frames.size());
  made.end.set_digest(digest.value());
  return made;
}

}  // namespace shardstep
