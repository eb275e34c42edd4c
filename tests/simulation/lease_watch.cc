#include "shardstep/tests/simulation/lease_watch.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

void LeaseWatch::Begin() {
  began_ = clock_->Now();
  heard_of_.clear();
}

Reply<std::string> LeaseWatch::Watch(Method method, const std::string& request,
                                     Reply<std::string> reply) {
  return [this, method, request, served = clock_->Now(),
          reply = std::move(reply)](const absl::StatusOr<std::string>& answer) {
    OnAnswer(method, request, served, answer);
    reply(answer);
  };
}

void LeaseWatch::OnAnswer(Method method, const std::string& request, absl::Time served,
                          const absl::StatusOr<std::string>& answer) {
  if (method == Method::kOpenSession && answer.ok()) {
    v1::OpenSessionRequest asked;
    v1::OpenSessionReply opened;
    asked.ParseFromString(request);
    opened.ParseFromString(*answer);
    ranks_[opened.session()] = asked.trainer_rank();
    heard_of_[asked.trainer_rank()] = std::max(heard_of_[asked.trainer_rank()], served);
  } else if (method == Method::kRenewSession && answer.ok()) {
    v1::RenewSessionRequest asked;
    asked.ParseFromString(request);
    const auto rank = ranks_.find(asked.header().session());
    if (rank == ranks_.end()) return;
    heard_of_[rank->second] = std::max(heard_of_[rank->second], served);
  } else if (ReasonOf(answer.status()) == v1::PARTICIPANT_LOST) {
    const v1::ErrorDetail detail = *ErrorDetailOf(answer.status());
    for (const int rank : detail.trainer_ranks()) {
      const auto heard = heard_of_.find(rank);
      const absl::Time last = heard == heard_of_.end() ? began_ : std::max(began_, heard->second);
      if (clock_->Now() - last >= lease_) continue;
      simulation_->Fail("expelled", absl::StrCat("trainer rank ", rank, " is called lost ",
                                                 absl::FormatDuration(clock_->Now() - last),
                                                 " after it was heard of"));
    }
  }
}

}  // namespace shardstep
