#include "shardstep/checkpoint/scatter.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/types/span.h"
#include "shardstep/checkpoint/region_range.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// Read at once, as far as chunks that are wanted follow each other.
constexpr int64_t kReadBytes = 4 << 20;

// A piece, and the bytes of the file between which it lies.
struct FileRange {
  Piece piece;
  int64_t begin;
  int64_t end;
};

// The place of an element of the tensor in a block's row-major order.
int64_t PlaceIn(const Region& block, absl::Span<const int64_t> element) {
  int64_t place = 0;
  for (size_t d = 0; d < block.sizes.size(); ++d) {
    place = place * block.sizes[d] + element[d] - block.offsets[d];
  }
  return place;
}

FileRange FileRangeOf(Piece piece) {
  InlineShape last = piece.part.offsets;
  for (size_t d = 0; d < last.size(); ++d) last[d] += piece.part.sizes[d] - 1;
  const int64_t begin = piece.offset + PlaceIn(piece.stored, piece.part.offsets) * piece.item_size;
  const int64_t end = piece.offset + (PlaceIn(piece.stored, last) + 1) * piece.item_size;
  return {std::move(piece), begin, end};
}

// What to take out of the bytes [begin, end) of the file: `part` of the piece, as far as it is
// there. An element may lie astride: its other bytes come with the next chunk.
struct Copy {
  const Piece* piece;
  Region part;
  int64_t begin;
  int64_t end;
};

void AddCopies(const Piece& piece, int64_t begin, int64_t end, std::vector<Copy>* copies) {
  const int64_t elements = ElementCount(piece.stored.sizes);
  const int64_t first = std::max<int64_t>(begin - piece.offset, 0) / piece.item_size;
  const int64_t last =
      std::min(elements, (end - piece.offset + piece.item_size - 1) / piece.item_size);
  for (const Region& region : RegionsOfRange(piece.stored, first, last)) {
    std::optional<Region> part = Intersect(region, piece.part);
    if (part.has_value()) copies->push_back({&piece, *std::move(part), begin, end});
  }
}

// `bytes` begin at byte `at` of the file.
void Run(const Copy& copy, const char* bytes, int64_t at) {
  const Piece& piece = *copy.piece;
  ForEachRun(copy.part, piece.stored, piece.wanted, [&](int64_t from, int64_t to, int64_t count) {
    const int64_t run_begin = piece.offset + from * piece.item_size;
    const int64_t begin = std::max(run_begin, copy.begin);
    const int64_t end = std::min(run_begin + count * piece.item_size, copy.end);
    std::memcpy(piece.out + to * piece.item_size + (begin - run_begin), bytes + (begin - at),
                end - begin);
  });
}

// Chunks that follow each other, and what to take out of them.
class Batch {
 public:
  explicit Batch(const ChunkReader* file, absl::FunctionRef<void(int64_t)> progress)
      : file_(file), progress_(progress) {}

  absl::Status Add(size_t chunk, std::vector<Copy> copies) {
    const bool fits = chunk == last_ && file_->End(chunk) - file_->Begin(first_) <= kReadBytes;
    if (!fits) {
      SHARDSTEP_RETURN_IF_ERROR(Flush());
      first_ = chunk;
    }
    last_ = chunk + 1;
    std::move(copies.begin(), copies.end(), std::back_inserter(copies_));
    return absl::OkStatus();
  }

  absl::Status Flush() {
    if (copies_.empty()) return absl::OkStatus();
    SHARDSTEP_RETURN_IF_ERROR(file_->Read(first_, last_, &bytes_));
    for (const Copy& copy : copies_) Run(copy, bytes_.data(), file_->Begin(first_));
    progress_(static_cast<int64_t>(bytes_.size()));
    copies_.clear();
    return absl::OkStatus();
  }

 private:
  const ChunkReader* const file_;
  const absl::FunctionRef<void(int64_t)> progress_;
  std::vector<char> bytes_;
  std::vector<Copy> copies_;
  size_t first_ = 0;
  size_t last_ = 0;
};

}  // namespace

absl::Status Scatter(const ChunkReader& file, std::vector<Piece> pieces,
                     absl::FunctionRef<void(int64_t)> progress) {
  std::vector<FileRange> ranges;
  ranges.reserve(pieces.size());
  for (Piece& piece : pieces) ranges.push_back(FileRangeOf(std::move(piece)));
  std::sort(ranges.begin(), ranges.end(),
            [](const FileRange& a, const FileRange& b) { return a.begin < b.begin; });

  Batch batch(&file, progress);
  std::vector<const FileRange*> open;  // those that reach into the chunk
  size_t next = 0;
  size_t chunk = 0;
  while (next < ranges.size() || !open.empty()) {
    if (open.empty()) chunk = std::max(chunk, file.ChunkOf(ranges[next].begin));
    const int64_t begin = file.Begin(chunk);
    const int64_t end = file.End(chunk);
    while (next < ranges.size() && ranges[next].begin < end) open.push_back(&ranges[next++]);
    std::vector<Copy> copies;
    for (const FileRange* range : open) AddCopies(range->piece, begin, end, &copies);
    if (!copies.empty()) SHARDSTEP_RETURN_IF_ERROR(batch.Add(chunk, std::move(copies)));
    open.erase(std::remove_if(open.begin(), open.end(),
                              [&](const FileRange* range) { return range->end <= end; }),
               open.end());
    ++chunk;
  }
  return batch.Flush();
}

}  // namespace shardstep
