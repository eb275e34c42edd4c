#include "shardstep/server/host_allocator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <vector>

#include "shardstep/wire/allocator.h"

namespace shardstep {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kOwnMalloc = false;
#else
constexpr bool kOwnMalloc = true;
#endif

class HostAllocatorTest : public testing::Test {
 protected:
  // As a server's main() does.
  static void SetUpTestSuite() {
    ASSERT_TRUE(ConfigureAllocator());
    UseHostAllocator();
  }
};

TEST_F(HostAllocatorTest, Aligns) {
  std::vector<at::Tensor> tensors;
  for (const int64_t elements : {1, 3, 15, 16, 17, 1000, 4096, 1 << 20, 9 << 20}) {
    tensors.push_back(at::empty({elements}, at::kFloat));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensors.back().data_ptr()) % 64, 0) << elements;
    tensors.back().fill_(static_cast<float>(elements));
  }
  for (const at::Tensor& tensor : tensors) {
    EXPECT_TRUE(tensor.eq(static_cast<float>(tensor.numel())).all().item<bool>());
  }
  EXPECT_EQ(at::empty({0}, at::kFloat).numel(), 0);
}

TEST_F(HostAllocatorTest, ATensorFitsWhereOneOfItsSizeWas) {
  if (!kOwnMalloc) GTEST_SKIP() << "the sanitizer's malloc gives no block twice";
  for (const int64_t elements : {100, 1 << 14, 1 << 20}) {
    at::Tensor first = at::empty({elements}, at::kFloat);
    const void* const where = first.data_ptr();
    std::vector<std::unique_ptr<char[]>> small;
    for (int i = 0; i < 100; ++i) small.push_back(std::make_unique<char[]>(40 + i));
    first.reset();
    EXPECT_EQ(at::empty({elements}, at::kFloat).data_ptr(), where) << elements;
  }
}

// oneDNN takes over products of bfloat16 on some CPUs, and allocates without tensors.
TEST_F(HostAllocatorTest, ServesThoseWhoTakeMemoryAlone) {
  c10::Allocator& allocator = *c10::GetCPUAllocator();
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{100}, size_t{1} << 20}) {
    void* const memory = allocator.raw_allocate(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0) << bytes;
    allocator.raw_deallocate(memory);
  }
  for (const int64_t size : {4, 64, 300}) {
    const at::Tensor ones = at::ones({size, size}, at::kBFloat16);
    EXPECT_TRUE(at::mm(ones, ones).eq(static_cast<float>(size)).all().item<bool>()) << size;
  }
  EXPECT_TRUE(allocator.is_simple_data_ptr(allocator.allocate(100)));
}

TEST_F(HostAllocatorTest, ThrowsWhereThereIsNoMemory) {
  if (!kOwnMalloc) GTEST_SKIP() << "the sanitizer ends the process";
  EXPECT_THROW(at::empty({int64_t{1} << 60}, at::kByte), std::exception);
  EXPECT_THROW(at::empty({std::numeric_limits<int64_t>::max()}, at::kByte), std::exception);
}

}  // namespace
}  // namespace shardstep
