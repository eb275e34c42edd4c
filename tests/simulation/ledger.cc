#include "shardstep/tests/simulation/ledger.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/server/chain_hash.h"

namespace shardstep {
namespace {

absl::string_view BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::string Place(uint64_t lineage, uint64_t version) {
  return absl::StrCat("version ", version, " of lineage ", lineage);
}

}  // namespace

void Ledger::Begun(uint64_t lineage, uint64_t version) {
  simulation_->Trace(absl::StrCat("lineage ", lineage, " begins at version ", version));
  lineages_[lineage].base = version;
}

void Ledger::Asked(int rank, uint64_t lineage, uint64_t step) {
  uint64_t& asked = lineages_[lineage].asked[rank];
  asked = std::max(asked, step);
}

void Ledger::Walk(uint64_t lineage, uint64_t version,
                  const std::function<bool(uint64_t, const Contributions&)>& see) const {
  uint64_t end = version;
  for (auto entry = lineages_.rbegin(); entry != lineages_.rend(); ++entry) {
    if (entry->first > lineage) continue;
    const auto& commits = entry->second.commits;
    for (auto commit = std::make_reverse_iterator(commits.upper_bound(end));
         commit != commits.rend(); ++commit) {
      if (!see(commit->first, commit->second)) return;
    }
    end = std::min(end, entry->second.base);
  }
}

Ledger::Contributions Ledger::Known(uint64_t lineage, uint64_t version) const {
  Contributions known;
  Walk(lineage, version, [&](uint64_t, const Contributions& contributions) {
    for (const auto& [rank, step] : contributions) known.emplace(rank, step);
    return static_cast<int>(known.size()) < workload_.trainers;
  });
  return known;
}

uint64_t Ledger::HighestAsked(int rank, uint64_t lineage) const {
  uint64_t highest = 0;
  for (const auto& [number, history] : lineages_) {
    const auto asked = history.asked.find(rank);
    if (number <= lineage && asked != history.asked.end())
      highest = std::max(highest, asked->second);
  }
  return highest;
}

void Ledger::Note(int rank, uint64_t step, uint64_t lineage, uint64_t version) {
  simulation_->Trace(
      absl::StrCat("step ", step, " of trainer rank ", rank, " is ", Place(lineage, version)));
  Walk(lineage, UINT64_MAX, [&](uint64_t committed, const Contributions& contributions) {
    const auto known = contributions.find(rank);
    if (known == contributions.end() || known->second > step) return true;
    if (known->second == step && committed != version) {
      Fail("duplicated", absl::StrCat("step ", step, " of trainer rank ", rank, " became version ",
                                      committed, " and ", Place(lineage, version)));
    }
    return false;
  });
  Contributions& commit = lineages_[lineage].commits[version];
  const bool alone = !workload_.synchronous && !commit.empty() && commit.count(rank) == 0;
  const auto [known, added] = commit.emplace(rank, step);
  if (alone || known->second != step) {
    Fail("forked", absl::StrCat(Place(lineage, version), " is step ", step, " of trainer rank ",
                                rank, " and another one too"));
  }
}

void Ledger::Acknowledged(int rank, uint64_t step, const v1::StepReply::Committed& reply) {
  ++acknowledged_;
  if (durability_ == Durability::kWal && reply.durable_version() < reply.version()) {
    Fail("wrong", absl::StrCat("version ", reply.version(), " is acknowledged, and only ",
                               reply.durable_version(), " is called durable"));
  }
  Note(rank, step, reply.lineage(), reply.version());
  uint64_t& promised = lineages_[reply.lineage()].promised;
  promised = std::max(promised, reply.durable_version());
}

void Ledger::CheckPromise(uint64_t lineage) {
  if (durability_ != Durability::kCheckpoint) return;
  for (const auto& [number, before] : lineages_) {
    if (number >= lineage || before.promised <= lineages_[lineage].base) continue;
    Fail("lost",
         absl::StrCat("lineage ", lineage, " begins at version ", lineages_[lineage].base, ", ",
                      before.promised, " of lineage ", number, " was called durable"));
  }
}

void Ledger::Resumed(int rank, uint64_t session, uint64_t lineage, uint64_t steps,
                     uint64_t last_version) {
  uint64_t& newest = newest_session_[rank];
  if (session < newest) return;
  newest = session;
  CheckPromise(lineage);
  const uint64_t known = Known(lineage, UINT64_MAX)[rank];
  const std::string what =
      absl::StrCat("trainer rank ", rank, " hears in lineage ", lineage, " that ", steps,
                   " of its steps are committed; ", known, " were acknowledged, ",
                   HighestAsked(rank, lineage), " asked for");
  if (steps < known) Fail("lost", what);
  if (steps > HighestAsked(rank, lineage)) Fail("duplicated", what);
  if (steps > known) {
    simulation_->probes().Hit("resumed_behind_unacknowledged_step");
    if (last_version != 0) {
      // It may have been committed before the lineage began.
      uint64_t of = lineage;
      while (of != 0 && lineages_[of].base >= last_version && of != lineages_.begin()->first) {
        of = std::prev(lineages_.find(of))->first;
      }
      Note(rank, steps, of, last_version);
    }
  }
}

Ledger::Floor Ledger::FloorNow() const {
  if (lineages_.empty()) return {};
  const auto& [lineage, newest] = *lineages_.rbegin();
  const uint64_t told = newest.commits.empty() ? newest.base : newest.commits.rbegin()->first;
  return {lineage, std::max(told, newest.promised)};
}

// ---- what is read

void Ledger::CheckStanding(const ShardHost::Standing& standing) {
  if (!standing.live) return;
  const auto [known, added] =
      chains_.emplace(std::make_pair(standing.lineage, standing.version), standing.chain_hash);
  if (known->second != standing.chain_hash) {
    Fail("forked", absl::StrCat(Place(standing.lineage, standing.version),
                                " has two histories on two servers"));
  }
}

void Ledger::CheckRead(const Read& read, const Floor& floor) {
  CheckPromise(read.lineage);
  if (read.lineage == floor.lineage && read.version < floor.version) {
    Fail("lost", absl::StrCat(Place(read.lineage, read.version), " is read, ", floor.version,
                              " was acknowledged before"));
  }
  uint64_t hash = kEmptyChain;
  for (const auto* values : {&read.ledger, &read.momentum, &read.buffer}) {
    hash = ChainHash(hash, BytesOf(*values));
  }
  const auto [known, added] = reads_.emplace(std::make_pair(read.lineage, read.version), hash);
  if (known->second != hash) {
    Fail("forked", absl::StrCat(Place(read.lineage, read.version), " is read with two contents"));
  }
  const std::optional<Contributions> counts = Counts(read);
  if (!counts.has_value()) return;
  CheckCounts(read, *counts);
  CheckBits(read, *counts);
}

std::optional<Ledger::Contributions> Ledger::Counts(const Read& read) {
  Contributions counts;
  for (size_t p = 0; p < read.ledger.size(); ++p) {
    const float value = read.ledger[p];
    const int rank = static_cast<int>(p) % workload_.trainers;
    const auto [first, added] = counts.emplace(rank, static_cast<uint64_t>(value));
    if (value == static_cast<float>(first->second)) continue;
    Fail("torn", absl::StrCat(Place(read.lineage, read.version), ": trainer rank ", rank, " has ",
                              first->second, " in one slot and ", value, " in slot ", p));
    return std::nullopt;
  }
  return counts;
}

void Ledger::CheckCounts(const Read& read, const Contributions& counts) {
  Contributions known = Known(read.lineage, read.version);
  uint64_t sum = 0;
  for (const auto& [rank, count] : counts) {
    const std::string what = absl::StrCat(
        Place(read.lineage, read.version), ": trainer rank ", rank, " has ", count, ", ",
        known[rank], " were acknowledged and ", HighestAsked(rank, read.lineage), " asked for");
    if (count < known[rank]) Fail("lost", what);
    if (count > HighestAsked(rank, read.lineage)) Fail("duplicated", what);
    sum += count;
  }
  const uint64_t expected = read.version * (workload_.synchronous ? workload_.trainers : 1);
  if (sum != expected) {
    Fail(sum < expected ? "lost" : "duplicated",
         absl::StrCat(Place(read.lineage, read.version), " has ", sum, " contributions, expected ",
                      expected));
  }
}

void Ledger::CheckBits(const Read& read, const Contributions& counts) {
  std::vector<Contributions> steps(read.version);
  Walk(read.lineage, read.version, [&](uint64_t version, const Contributions& contributions) {
    if (version > 0) steps[version - 1] = contributions;
    return true;
  });
  if (workload_.synchronous) {
    for (uint64_t version = 1; version <= read.version; ++version) {
      for (const auto& [rank, count] : counts) steps[version - 1][rank] = version;
    }
  }
  // One version that nobody was told of is the one step that nobody was told of.
  std::map<int, std::set<uint64_t>> untold;
  for (const auto& [rank, count] : counts) {
    for (uint64_t step = 1; step <= count; ++step) untold[rank].insert(step);
  }
  std::vector<Contributions*> open;
  for (Contributions& step : steps) {
    if (step.empty()) open.push_back(&step);
    for (const auto& [rank, number] : step) untold[rank].erase(number);
  }
  if (open.size() > 1) return;
  for (const auto& [rank, numbers] : untold) {
    for (const uint64_t number : numbers) {
      if (!open.empty()) (*open[0])[rank] = number;
    }
  }
  const size_t common = std::min(steps.size(), computed_.size());
  if (!reference_.has_value() || steps.size() < computed_.size() ||
      !std::equal(computed_.begin(), computed_.begin() + common, steps.begin())) {
    auto reference = Reference::Create(workload_);
    if (!reference.ok()) return Fail("wrong", reference.status().ToString());
    reference_.emplace(*std::move(reference));
    computed_.clear();
  }
  while (computed_.size() < steps.size()) {
    const Contributions& step = steps[computed_.size()];
    const absl::Status status = reference_->Step(step);
    if (!status.ok()) return Fail("wrong", status.ToString());
    computed_.push_back(step);
  }
  simulation_->probes().Hit("bits_compared");
  const auto same = [&](const std::vector<float>& a, const std::vector<float>& b,
                        absl::string_view what) {
    if (BytesOf(a) == BytesOf(b)) return;
    Fail("diverged", absl::StrCat(Place(read.lineage, read.version), ": ", what,
                                  " has other bits than in one process"));
  };
  same(read.ledger, reference_->Values(Workload::kLedger), "the ledger");
  same(read.momentum, reference_->Values(Workload::kMomentum), "m");
  same(read.buffer, reference_->MomentumBuffer(), "the momentum of m");
}

}  // namespace shardstep
