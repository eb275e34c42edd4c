#include "shardstep/client/state_dict_reader.h"

#include <utility>

#include "shardstep/client/state_dict_stream.h"

namespace shardstep {

StateDictReader::StateDictReader(std::unique_ptr<internal::StateDictStream> stream)
    : stream_(std::move(stream)) {}
StateDictReader::StateDictReader(StateDictReader&&) noexcept = default;
StateDictReader& StateDictReader::operator=(StateDictReader&&) noexcept = default;
StateDictReader::~StateDictReader() = default;

uint64_t StateDictReader::version() const { return stream_->version(); }
uint64_t StateDictReader::lineage() const { return stream_->lineage(); }
const std::vector<ParamGroup>& StateDictReader::param_groups() const {
  return stream_->param_groups();
}
const std::map<int, std::string>& StateDictReader::trainer_states() const {
  return stream_->trainer_states();
}
const std::vector<StateDictEntry>& StateDictReader::entries() const { return stream_->entries(); }
uint64_t StateDictReader::total_bytes() const { return stream_->total_bytes(); }

absl::StatusOr<std::optional<StateDictPiece>> StateDictReader::Next() { return stream_->Next(); }

}  // namespace shardstep
