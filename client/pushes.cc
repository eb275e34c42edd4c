#include "shardstep/client/pushes.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "shardstep/client/row_cut.h"
#include "shardstep/client/tensor_cut.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {
namespace {

bool All(const std::vector<bool>& bits) {
  return std::find(bits.begin(), bits.end(), false) == bits.end();
}

std::string Bitmap(const std::vector<bool>& bits) {
  std::string bytes((bits.size() + 7) / 8, '\0');
  for (size_t i = 0; i < bits.size(); ++i) {
    if (bits[i]) bytes[i / 8] = static_cast<char>(bytes[i / 8] | (1 << (i % 8)));
  }
  return bytes;
}

// Of parameters whose gradients consist of rows: empty if there are none.
std::string RowsBitmap(const std::vector<bool>& rows) {
  return std::find(rows.begin(), rows.end(), true) == rows.end() ? "" : Bitmap(rows);
}

}  // namespace

Pushes::Pushes(std::shared_ptr<const ClientCore> client, const v1::CallHeader& header,
               std::shared_ptr<const OptimizerIndex> index, DeclaredRegions regions)
    : client_(std::move(client)),
      header_(header),
      index_(std::move(index)),
      regions_(std::move(regions)) {
  for (int rank = 0; rank < client_->connection().num_servers(); ++rank) {
    lanes_.push_back(
        std::make_unique<PushLane>(&client_->connection(), rank, index_, client_->policy()));
  }
}

void Pushes::Adopt(std::shared_ptr<const OptimizerIndex> index) {
  {
    MutexLock lock(&mutex_);
    while (adding_ > 0) changed_.Wait(&mutex_);
    index_ = index;
    const size_t parameters = index->parameters().size();
    regions_.resize(parameters);
    for (auto& [sequence, held] : held_) {
      held.touched.resize(parameters, false);
      held.rows.resize(parameters, false);
      held.begin.mutable_header()->set_plan_id(index->plan_id());
    }
  }
  for (const auto& lane : lanes_) lane->Adopt(index);
}

absl::StatusOr<Pushes::PushId> Pushes::Begin(v1::Begin begin) {
  if (!std::isfinite(begin.weight()) || begin.weight() <= 0.0) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight: expected a finite number above 0, got ", begin.weight()));
  }
  PushId push;
  {
    MutexLock lock(&mutex_);
    if (open_) {
      return absl::FailedPreconditionError(
          absl::StrCat("push ", last_, " of \"", index_->name(), "\" is open; call Finish first"));
    }
    if (!held_.empty() && held_.begin()->second.begin.weight() != begin.weight()) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight: expected ", held_.begin()->second.begin.weight(),
                       ", as the other pushes of this step have, got ", begin.weight()));
    }
    push = {++last_, ++openings_};
    open_ = push;
    v1::CallHeader& header = *begin.mutable_header();
    header.MergeFrom(header_);
    header.set_plan_id(index_->plan_id());
    header.set_sequence(push.sequence);
    header.set_first_live_push(first_live_);
    Held& held = held_[push.sequence];
    held.begin = begin;
    held.touched.resize(index_->parameters().size(), false);
    held.rows.resize(index_->parameters().size(), false);
    const bool synchronous =
        std::holds_alternative<Synchronous>(index_->description().definition.mode);
    held.servers.resize(lanes_.size(), synchronous);
  }
  for (const auto& lane : lanes_) lane->Begin(begin);
  return push;
}

absl::Status Pushes::Add(PushId push, absl::string_view name,
                         absl::Span<const ConstTensorView> views,
                         const std::shared_ptr<const void>& owner) {
  SHARDSTEP_RETURN_IF_ERROR(StartAdding(push));
  const absl::Cleanup added = [this] { StopAdding(); };
  const std::shared_ptr<const OptimizerIndex> index = this->index();
  SHARDSTEP_ASSIGN_OR_RETURN(const int parameter, index->Find(name));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<Block> blocks,
                             index->BlocksOf(parameter, RegionsOf(*index, parameter), views));
  SHARDSTEP_RETURN_IF_ERROR(Touch(push.sequence, *index, parameter, /*rows=*/false, owner));
  Send(push.sequence, *index, parameter, blocks, /*zeros=*/false);
  return absl::OkStatus();
}

absl::Status Pushes::AddRows(PushId push, absl::string_view name, const RowGradient& gradient,
                             const std::shared_ptr<const void>& owner) {
  SHARDSTEP_RETURN_IF_ERROR(StartAdding(push));
  const absl::Cleanup added = [this] { StopAdding(); };
  const std::shared_ptr<const OptimizerIndex> index = this->index();
  SHARDSTEP_ASSIGN_OR_RETURN(const int parameter, index->Find(name));
  const Region whole = WholeRegion(index->parameters()[parameter].sizes);
  if (RegionsOf(*index, parameter) != std::vector<Region>{whole}) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter \"", name, "\": has local shards; its gradient cannot be given by rows"));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckRows(*index, parameter, gradient));
  RowGradient sent = gradient;
  std::shared_ptr<const void> kept = owner;
  if (HasTooManyRows(*index, parameter, gradient)) {
    const std::shared_ptr<const SummedRows> summed = SumRows(gradient);
    sent = {summed->rows, summed->values};
    kept = summed;
  }
  SHARDSTEP_RETURN_IF_ERROR(Touch(push.sequence, *index, parameter, /*rows=*/true, kept));
  std::vector<std::vector<OutgoingSlice>> slices(lanes_.size());
  const auto [first, end] = index->ShardsOf(parameter);
  for (int shard = first; shard < end; ++shard) {
    CutRows(*index, shard, sent, &slices[index->shard(shard).metadata.placement.server_rank]);
  }
  SendSlices(push.sequence, std::move(slices));
  return absl::OkStatus();
}

absl::Status Pushes::Finish(PushId push) {
  std::string touched;
  std::string rows;
  std::vector<bool> servers;
  {
    MutexLock lock(&mutex_);
    SHARDSTEP_RETURN_IF_ERROR(StartClosing(push));
    const Held& held = held_.at(push.sequence);
    servers = held.servers;
    touched = Bitmap(held.touched);
    rows = RowsBitmap(held.rows);
  }
  for (size_t rank = 0; rank < lanes_.size(); ++rank) {
    if (servers[rank]) {
      lanes_[rank]->End(push.sequence, touched, rows);
    } else {
      lanes_[rank]->LeaveOut(push.sequence);
    }
  }
  // Not before: the next push would be sent first.
  MutexLock lock(&mutex_);
  Close();
  return absl::OkStatus();
}

void Pushes::Abandon(PushId push) {
  {
    MutexLock lock(&mutex_);
    if (!StartClosing(push).ok()) return;
  }
  for (const auto& lane : lanes_) lane->Abandon(push.sequence);
  Held dropped;
  MutexLock lock(&mutex_);
  dropped = std::move(held_.at(push.sequence));
  held_.erase(push.sequence);
  --last_;
  Close();
}

absl::Status Pushes::ReplaceWithZeros() {
  const std::shared_ptr<const OptimizerIndex> index = this->index();
  Touched touched;
  v1::Begin begin;
  {
    MutexLock lock(&mutex_);
    if (held_.empty()) return absl::OkStatus();
    begin = held_.rbegin()->second.begin;
    touched = AllTouched();
  }
  Drop(last() + 1);
  begin.set_last(false);
  SHARDSTEP_ASSIGN_OR_RETURN(const PushId push, Begin(std::move(begin)));
  for (size_t i = 0; i < touched.any.size(); ++i) {
    if (!touched.any[i]) continue;
    const int parameter = static_cast<int>(i);
    SHARDSTEP_RETURN_IF_ERROR(
        Touch(push.sequence, *index, parameter, /*rows=*/!touched.whole[i], nullptr));
    if (!touched.whole[i]) continue;
    std::vector<Block> blocks;
    for (const Region& region : RegionsOf(*index, parameter)) {
      blocks.push_back({region, {nullptr, index->parameters()[i].dtype, ToShape(region.sizes)}});
    }
    Send(push.sequence, *index, parameter, blocks, /*zeros=*/true);
  }
  return Finish(push);
}

uint64_t Pushes::first_live() const {
  MutexLock lock(&mutex_);
  return first_live_;
}

uint64_t Pushes::last() const {
  MutexLock lock(&mutex_);
  return last_;
}

std::optional<Pushes::PushId> Pushes::open() const {
  MutexLock lock(&mutex_);
  return open_;
}

double Pushes::weight() const {
  MutexLock lock(&mutex_);
  return held_.empty() ? 1.0 : held_.begin()->second.begin.weight();
}

std::optional<v1::PartialPushes> Pushes::partial() const {
  MutexLock lock(&mutex_);
  if (std::all_of(held_.begin(), held_.end(),
                  [](const auto& e) { return All(e.second.servers); })) {
    return std::nullopt;
  }
  v1::PartialPushes partial;
  for (size_t rank = 0; rank < lanes_.size(); ++rank) {
    v1::PartialPushes::SentTo sent;
    sent.set_server_rank(static_cast<int>(rank));
    for (const auto& [sequence, held] : held_) {
      if (held.servers[rank]) sent.add_sequences(sequence);
    }
    if (sent.sequences_size() > 0) *partial.add_sent_to() = std::move(sent);
  }
  const Touched touched = AllTouched();
  std::vector<bool> rows = touched.any;
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = rows[i] && !touched.whole[i];
  partial.set_touched(Bitmap(touched.any));
  partial.set_rows(RowsBitmap(rows));
  return partial;
}

absl::Status Pushes::AwaitAcks(uint64_t last, absl::Time deadline) {
  for (const auto& lane : lanes_) {
    SHARDSTEP_RETURN_IF_ERROR(lane->AwaitAcks(last, deadline));
  }
  return absl::OkStatus();
}

void Pushes::Repeat(int server_rank, uint64_t first, uint64_t last) {
  if (server_rank < 0 || server_rank >= static_cast<int>(lanes_.size())) return;
  lanes_[server_rank]->Repeat(first, last);
}

void Pushes::Drop(uint64_t first_live) {
  for (const auto& lane : lanes_) lane->Forget(first_live);
  std::vector<Held> dropped;  // owners may free much memory: not under the lock
  MutexLock lock(&mutex_);
  first_live_ = std::max(first_live_, first_live);
  while (!held_.empty() && held_.begin()->first < first_live) {
    dropped.push_back(std::move(held_.begin()->second));
    held_.erase(held_.begin());
  }
}

Pushes::Touched Pushes::AllTouched() const {
  const size_t parameters = index_->parameters().size();
  Touched all{std::vector<bool>(parameters, false), std::vector<bool>(parameters, false)};
  for (const auto& [sequence, held] : held_) {
    for (size_t i = 0; i < parameters; ++i) {
      all.any[i] = all.any[i] || held.touched[i];
      all.whole[i] = all.whole[i] || (held.touched[i] && !held.rows[i]);
    }
  }
  return all;
}

absl::Status Pushes::CheckOpen(PushId push) const {
  if (open_ && open_->opening == push.opening && !closing_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("push ", push.sequence, " of \"", index_->name(), "\" is not open"));
}

absl::Status Pushes::StartAdding(PushId push) {
  MutexLock lock(&mutex_);
  SHARDSTEP_RETURN_IF_ERROR(CheckOpen(push));
  ++adding_;
  return absl::OkStatus();
}

void Pushes::StopAdding() {
  MutexLock lock(&mutex_);
  if (--adding_ == 0) changed_.NotifyAll();
}

absl::Status Pushes::StartClosing(PushId push) {
  while (closing_ && open_->opening == push.opening) changed_.Wait(&mutex_);
  SHARDSTEP_RETURN_IF_ERROR(CheckOpen(push));
  closing_ = true;
  while (adding_ > 0) changed_.Wait(&mutex_);
  return absl::OkStatus();
}

void Pushes::Close() {
  open_.reset();
  closing_ = false;
  changed_.NotifyAll();
}

absl::Status Pushes::Touch(uint64_t sequence, const OptimizerIndex& index, int parameter, bool rows,
                           const std::shared_ptr<const void>& owner) {
  MutexLock lock(&mutex_);
  Held& held = held_.at(sequence);
  if (held.touched[parameter]) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter \"", index.parameters()[parameter].name, "\": added twice to push ", sequence));
  }
  held.touched[parameter] = true;
  held.rows[parameter] = rows;
  const auto [first, end] = index.ShardsOf(parameter);
  for (int shard = first; shard < end; ++shard) {
    held.servers[index.shard(shard).metadata.placement.server_rank] = true;
  }
  if (owner != nullptr) held.owners.push_back(owner);
  return absl::OkStatus();
}

void Pushes::Send(uint64_t sequence, const OptimizerIndex& index, int parameter,
                  const std::vector<Block>& blocks, bool zeros) {
  std::vector<std::vector<OutgoingSlice>> slices(lanes_.size());
  const auto [first, end] = index.ShardsOf(parameter);
  for (int shard = first; shard < end; ++shard) {
    const int rank = index.shard(shard).metadata.placement.server_rank;
    for (const Block& block : blocks) {
      if (zeros) {
        CutZeros(index, shard, block, &slices[rank]);
      } else {
        CutBlock(index, shard, /*tensor=*/0, block, &slices[rank]);
      }
    }
  }
  SendSlices(sequence, std::move(slices));
}

void Pushes::SendSlices(uint64_t sequence, std::vector<std::vector<OutgoingSlice>> slices) {
  for (size_t rank = 0; rank < lanes_.size(); ++rank) {
    if (!slices[rank].empty()) lanes_[rank]->Add(sequence, std::move(slices[rank]));
  }
}

std::shared_ptr<const OptimizerIndex> Pushes::index() const {
  MutexLock lock(&mutex_);
  return index_;
}

std::vector<Region> Pushes::RegionsOf(const OptimizerIndex& index, int parameter) const {
  MutexLock lock(&mutex_);
  if (!regions_[parameter].empty()) return regions_[parameter];
  return {WholeRegion(index.parameters()[parameter].sizes)};
}

}  // namespace shardstep::internal
