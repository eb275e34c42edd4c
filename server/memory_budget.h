// MemoryBudget: a limit on bytes that many owners share (pushes waiting, versions held).
#ifndef SHARDSTEP_SERVER_MEMORY_BUDGET_H_
#define SHARDSTEP_SERVER_MEMORY_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <utility>

namespace shardstep {

// Thread-safe, never blocks. Must outlive its reservations.
class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t limit_bytes) : limit_(limit_bytes) {}

  int64_t limit() const { return limit_; }
  int64_t used() const { return used_.load(std::memory_order_relaxed); }

  // Bytes taken from a budget until destruction.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept { *this = std::move(other); }
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() {
      if (budget_ != nullptr) budget_->used_.fetch_sub(bytes_, std::memory_order_relaxed);
    }

    // Takes `bytes` more. False, and nothing is taken, where the limit forbids it.
    bool Grow(MemoryBudget* budget, int64_t bytes) {
      int64_t used = budget->used_.load(std::memory_order_relaxed);
      do {
        if (bytes > budget->limit_ - used) return false;
      } while (!budget->used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
      budget_ = budget;
      bytes_ += bytes;
      return true;
    }

   private:
    MemoryBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

 private:
  const int64_t limit_;
  std::atomic<int64_t> used_{0};
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_MEMORY_BUDGET_H_
