#include "shardstep/server/host_allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace shardstep {
namespace {

// What malloc gave lies in the word before the tensor's memory.
void** BlockOf(void* data) { return static_cast<void**>(data) - 1; }

void Free(void* data) {
  if (data != nullptr) std::free(*BlockOf(data));
}

// oneDNN, within ATen, allocates by raw_allocate: data and context must be one, and the deleter
// always the same.
class HostAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device host(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, Free, host};
    // malloc aligns to alignof(std::max_align_t), so that there always is a word before `data`.
    static_assert(c10::gAlignment > alignof(std::max_align_t) &&
                  alignof(std::max_align_t) >= sizeof(void*));
    if (bytes > SIZE_MAX - c10::gAlignment) throw std::bad_alloc();
    void* const block = std::malloc(bytes + c10::gAlignment);
    if (block == nullptr) throw std::bad_alloc();
    void* const data = static_cast<char*>(block) +
                       (c10::gAlignment - reinterpret_cast<uintptr_t>(block) % c10::gAlignment);
    *BlockOf(data) = block;
    return {data, data, Free, host};
  }

  c10::DeleterFnPtr raw_deleter() const override { return Free; }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

void UseHostAllocator() {
  // Never destroyed: tensors of static objects outlive whatever main() leaves.
  static auto* const allocator = new HostAllocator();
  c10::SetCPUAllocator(allocator, /*priority=*/255);
}

}  // namespace shardstep
