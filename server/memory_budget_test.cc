#include "shardstep/server/memory_budget.h"

#include <utility>

#include "gtest/gtest.h"

namespace shardstep {
namespace {

TEST(MemoryBudgetTest, ReservationsTakeAndGiveBack) {
  MemoryBudget budget(100);
  MemoryBudget::Reservation kept;
  {
    MemoryBudget::Reservation reservation;
    EXPECT_TRUE(reservation.Grow(&budget, 60));
    EXPECT_FALSE(reservation.Grow(&budget, 41));
    EXPECT_EQ(budget.used(), 60);
    EXPECT_TRUE(reservation.Grow(&budget, 40));
    kept = std::move(reservation);
  }
  EXPECT_EQ(budget.used(), 100);
  kept = MemoryBudget::Reservation();
  EXPECT_EQ(budget.used(), 0);
}

TEST(MemoryBudgetTest, NoSizeOverflows) {
  MemoryBudget budget(100);
  MemoryBudget::Reservation reservation;
  EXPECT_TRUE(reservation.Grow(&budget, 1));
  EXPECT_FALSE(reservation.Grow(&budget, INT64_MAX));
  EXPECT_EQ(budget.used(), 1);
}

}  // namespace
}  // namespace shardstep
