#include "shardstep/examples/digits/batch_order.h"

#include <numeric>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace shardstep {

std::vector<int64_t> Shuffled(std::vector<int64_t> rows, uint64_t seed) {
  // std::shuffle and the distributions differ from library to library; the engine does not.
  std::mt19937_64 random(seed);
  for (size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[random() % i]);
  return rows;
}

RowSplit SplitRows(int64_t rows, uint64_t seed) {
  std::vector<int64_t> all(static_cast<size_t>(rows));
  std::iota(all.begin(), all.end(), 0);
  all = Shuffled(std::move(all), seed);
  const auto middle = all.begin() + rows * 4 / 5;
  return {{all.begin(), middle}, {middle, all.end()}};
}

absl::StatusOr<BatchOrder> BatchOrder::Create(std::vector<int64_t> rows, int64_t batch_size,
                                              int trainers, uint64_t seed) {
  if (trainers < 1)
    return absl::InvalidArgumentError(
        absl::StrCat("trainers: expected at least 1, got ", trainers));
  if (batch_size < 1 || batch_size % trainers != 0) {
    return absl::InvalidArgumentError(absl::StrCat("batch size: expected a multiple of ", trainers,
                                                   " trainers, got ", batch_size));
  }
  if (static_cast<int64_t>(rows.size()) < batch_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "batch size: expected at most the number of rows, ", rows.size(), ", got ", batch_size));
  }
  return BatchOrder(std::move(rows), batch_size, trainers, seed);
}

std::vector<int64_t> BatchOrder::Rows(uint64_t version, int trainer_rank) const {
  const uint64_t per_epoch = static_cast<uint64_t>(batches_per_epoch());
  const uint64_t epoch = version / per_epoch;
  const std::vector<int64_t> order = Shuffled(rows_, seed_ + 1 + epoch);
  const int64_t part = batch_size_ / trainers_;
  const auto begin =
      order.begin() + static_cast<int64_t>(version % per_epoch) * batch_size_ + trainer_rank * part;
  return {begin, begin + part};
}

}  // namespace shardstep
