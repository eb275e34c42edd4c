// ReadPlan: the frames that answer one ReadState call on one server.
//
// What several shards keep is in the frames once (sharding/extent.h).
//
// In order: ReadBegin; Slices, tensor after tensor as the selector names them (else in the plan's
// order, each shard's value before its state and that before its master), each tensor in row-major
// order of its shard; Scalars; ReadEnd. The same request on the same snapshot gives the same
// payload bytes, which is what skipping counts on.
#ifndef SHARDSTEP_SERVER_RPC_READ_PLAN_H_
#define SHARDSTEP_SERVER_RPC_READ_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/server/held_version.h"
#include "shardstep/sharding/region.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

// `part` of `block` as runs that are contiguous in the block, in row-major order. Lengths and
// offsets in elements.
class Runs {
 public:
  // `part` lies inside `block`; an empty one is one run of no length.
  Runs(const Region& part, const Region& block);

  int64_t count() const { return count_; }
  int64_t length() const { return length_; }
  // Where run `index` begins, in the block's own row-major order.
  int64_t Offset(int64_t index) const;

 private:
  int64_t count_ = 1;
  int64_t length_ = 1;
  int64_t first_ = 0;
  std::vector<int64_t> sizes_;    // of the dimensions that are walked through, outermost first
  std::vector<int64_t> strides_;  // of the same, in the block
};

// Confined to one thread at a time. Knows no gRPC.
class ReadPlan {
 public:
  // NOT_FOUND, with the nearest name: no such parameter or state. INVALID_ARGUMENT: a block that
  // does not fit its parameter, nothing selected, `skip_bytes` that end inside an element or behind
  // all payload. FAILED_PRECONDITION: state is selected and the snapshot holds parameters alone.
  static absl::StatusOr<ReadPlan> Make(std::shared_ptr<const HeldVersion> held,
                                       const v1::Selector& selector, uint64_t skip_bytes);

  // A frame whose payload lies in the held tensors, or, rounded to a declared dtype, in `rounded`.
  struct Frame {
    FramePrefix prefix;
    std::vector<absl::string_view> payload;
    std::shared_ptr<const char[]> rounded;  // null where nothing was
  };
  // The next one; not behind the last.
  Frame Next();
  bool done() const { return phase_ == Phase::kDone; }

 private:
  struct Item {
    uint32_t shard = 0;
    uint32_t tensor = 0;
    DType dtype = DType::kInvalid;  // in the frames
    int64_t item_size = 0;          // of `dtype`
    const char* data = nullptr;
    bool rounds = false;  // `data` is of the master dtype, and that is not `dtype`
    Runs runs;

    uint64_t bytes() const { return runs.count() * runs.length() * item_size; }
  };
  enum class Phase { kBegin, kSlices, kScalars, kEnd, kDone };

  explicit ReadPlan(std::shared_ptr<const HeldVersion> held) : held_(std::move(held)) {}

  absl::Status CheckKind(const v1::Selector& selector, absl::string_view state) const;
  absl::Status Select(const v1::Selector& selector, const v1::TensorSelector& tensor);
  // The same for one parameter whose block is known to fit. `state`: only that one, and the block
  // is in its shape.
  void Add(const v1::Selector& selector, int parameter, const std::string& state,
           const std::optional<Region>& block);
  void AddTensor(size_t local, uint32_t tensor, const at::Tensor& values,
                 const std::optional<Region>& block);
  absl::Status Skip(uint64_t bytes);

  Frame BeginFrame() const;
  Frame SlicesFrame();
  Frame ScalarsFrame();
  Frame EndFrame() const;
  Frame Counted(const v1::FrameHeader& header, std::vector<absl::string_view> payload,
                std::shared_ptr<const char[]> rounded = nullptr);

  std::shared_ptr<const HeldVersion> held_;
  std::vector<Item> items_;
  std::vector<v1::Scalars::Scalar> scalars_;
  uint64_t bytes_ = 0;  // of payload to come, as ReadBegin says

  Phase phase_ = Phase::kBegin;
  // The next element: items_[item_], its run, its position in the run.
  size_t item_ = 0;
  int64_t run_ = 0;
  int64_t position_ = 0;
  size_t scalar_ = 0;
  uint64_t frames_ = 0;
  FrameDigest digest_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_READ_PLAN_H_
