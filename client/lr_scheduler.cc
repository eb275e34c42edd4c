#include "shardstep/client/lr_scheduler.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

absl::Status CheckFinite(double value, absl::string_view name) {
  if (std::isfinite(value)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", value, ", expected a finite number"));
}

absl::Status CheckAtLeast(int64_t value, int64_t least, absl::string_view name) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", value, ", expected at least ", least));
}

absl::Status Check(const LrSchedule& schedule) {
  return std::visit(
      Overloaded{
          [](const StepLr& step) {
            absl::Status status = CheckAtLeast(step.step_size, 1, "StepLr: step_size");
            status.Update(CheckFinite(step.gamma, "StepLr: gamma"));
            return status;
          },
          [](const MultiStepLr& step) { return CheckFinite(step.gamma, "MultiStepLr: gamma"); },
          [](const ConstantLr& constant) -> absl::Status {
            // PyTorch takes 0 and divides by it when the factor is to end.
            if (!(constant.factor > 0 && constant.factor <= 1)) {
              return absl::InvalidArgumentError(
                  "Constant multiplicative factor expected to be between 0 and 1.");
            }
            return CheckAtLeast(constant.total_iters, 0, "ConstantLr: total_iters");
          },
          [](const LinearLr& linear) -> absl::Status {
            if (!(linear.start_factor > 0 && linear.start_factor <= 1)) {
              return absl::InvalidArgumentError(
                  "Starting multiplicative factor expected to be greater than 0 and less or equal "
                  "to 1.");
            }
            if (!(linear.end_factor >= 0 && linear.end_factor <= 1)) {
              return absl::InvalidArgumentError(
                  "Ending multiplicative factor expected to be between 0 and 1.");
            }
            return CheckAtLeast(linear.total_iters, 1, "LinearLr: total_iters");
          },
          [](const ExponentialLr& exponential) {
            return CheckFinite(exponential.gamma, "ExponentialLr: gamma");
          },
          [](const CosineAnnealingLr& cosine) {
            absl::Status status = CheckAtLeast(cosine.t_max, 1, "CosineAnnealingLr: t_max");
            status.Update(CheckFinite(cosine.eta_min, "CosineAnnealingLr: eta_min"));
            return status;
          },
      },
      schedule);
}

absl::Status Check(const SequentialLr& sequence) {
  if (sequence.schedules.empty()) {
    return absl::InvalidArgumentError(
        "SequentialLR expects at least one scheduler, but got no scheduler.");
  }
  if (sequence.milestones.size() + 1 != sequence.schedules.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Sequential Schedulers expects number of schedulers provided to be one more "
                     "than the number of milestone points, but got number of schedulers ",
                     sequence.schedules.size(), " and the number of milestones to be equal to ",
                     sequence.milestones.size()));
  }
  int64_t last = 0;
  for (const int64_t milestone : sequence.milestones) {
    SHARDSTEP_RETURN_IF_ERROR(CheckAtLeast(milestone, std::max<int64_t>(last, 1),
                                           "SequentialLr: a milestone behind others"));
    last = milestone;
  }
  for (const LrSchedule& schedule : sequence.schedules) SHARDSTEP_RETURN_IF_ERROR(Check(schedule));
  return absl::OkStatus();
}

// get_lr() of PyTorch's classes: the rate of `epoch` from the one before it. The order of
// operations is theirs.
double Next(const LrSchedule& schedule, int64_t epoch, double base, double lr) {
  return std::visit(
      Overloaded{
          [&](const StepLr& step) {
            return epoch == 0 || epoch % step.step_size != 0 ? lr : lr * step.gamma;
          },
          [&](const MultiStepLr& step) {
            const auto times = std::count(step.milestones.begin(), step.milestones.end(), epoch);
            return times == 0 ? lr : lr * std::pow(step.gamma, static_cast<double>(times));
          },
          [&](const ConstantLr& constant) {
            if (epoch == 0) return lr * constant.factor;
            return epoch != constant.total_iters ? lr : lr * (1.0 / constant.factor);
          },
          [&](const LinearLr& linear) {
            if (epoch == 0) return lr * linear.start_factor;
            if (epoch > linear.total_iters) return lr;
            const double range = linear.end_factor - linear.start_factor;
            return lr *
                   (1.0 + range / (static_cast<double>(linear.total_iters) * linear.start_factor +
                                   static_cast<double>(epoch - 1) * range));
          },
          [&](const ExponentialLr& exponential) {
            return epoch == 0 ? lr : lr * exponential.gamma;
          },
          [&](const CosineAnnealingLr& cosine) {
            if (epoch == 0) return lr;
            const double t_max = static_cast<double>(cosine.t_max);
            if ((epoch - 1 - cosine.t_max) % (2 * cosine.t_max) == 0) {
              return lr + (base - cosine.eta_min) * (1 - std::cos(M_PI / t_max)) / 2;
            }
            return (1 + std::cos(M_PI * static_cast<double>(epoch) / t_max)) /
                       (1 + std::cos(M_PI * static_cast<double>(epoch - 1) / t_max)) *
                       (lr - cosine.eta_min) +
                   cosine.eta_min;
          },
      },
      schedule);
}

// _get_closed_form_lr() of PyTorch's classes at epoch 0: where SequentialLR begins another one.
double First(const LrSchedule& schedule, double base) {
  return std::visit(Overloaded{
                        [&](const StepLr&) { return base; },
                        [&](const MultiStepLr& step) {
                          const auto times =
                              std::count_if(step.milestones.begin(), step.milestones.end(),
                                            [](int64_t milestone) { return milestone <= 0; });
                          return base * std::pow(step.gamma, static_cast<double>(times));
                        },
                        [&](const ConstantLr& constant) {
                          const double over = constant.total_iters == 0 ? 1 - constant.factor : 0.0;
                          return base * (constant.factor + over);
                        },
                        [&](const LinearLr& linear) { return base * linear.start_factor; },
                        [&](const ExponentialLr&) { return base; },
                        [&](const CosineAnnealingLr& cosine) {
                          return cosine.eta_min + (base - cosine.eta_min) * 2 / 2;
                        },
                    },
                    schedule);
}

std::vector<double> RatesOf(const ShardedOptimizer& optimizer) {
  std::vector<double> rates;
  for (const ParamGroup& group : optimizer.param_groups()) {
    rates.push_back(group.options.Number("lr"));
  }
  return rates;
}

absl::Status SetRates(const std::vector<double>& before, const std::vector<double>& rates,
                      ShardedOptimizer* optimizer) {
  for (size_t group = 0; group < rates.size(); ++group) {
    if (rates[group] == before[group]) continue;
    SHARDSTEP_RETURN_IF_ERROR(
        optimizer->SetOption(static_cast<int>(group), "lr", OptionValue(rates[group])));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LrScheduler> LrScheduler::Create(SequentialLr schedule, std::vector<double>* rates) {
  SHARDSTEP_RETURN_IF_ERROR(Check(schedule));
  LrScheduler scheduler(std::move(schedule));
  scheduler.base_rates_ = *rates;
  for (double& rate : *rates) rate = Next(scheduler.schedule_.schedules[0], 0, rate, rate);
  return scheduler;
}

absl::StatusOr<LrScheduler> LrScheduler::Create(SequentialLr schedule,
                                                ShardedOptimizer* optimizer) {
  const std::vector<double> before = RatesOf(*optimizer);
  std::vector<double> rates = before;
  SHARDSTEP_ASSIGN_OR_RETURN(LrScheduler scheduler, Create(std::move(schedule), &rates));
  SHARDSTEP_RETURN_IF_ERROR(SetRates(before, rates, optimizer));
  return scheduler;
}

absl::StatusOr<LrScheduler> LrScheduler::Create(LrSchedule schedule, ShardedOptimizer* optimizer) {
  return Create(SequentialLr{{std::move(schedule)}, {}}, optimizer);
}

absl::StatusOr<LrScheduler> LrScheduler::Resume(LrSchedule schedule, absl::string_view state) {
  return Resume(SequentialLr{{std::move(schedule)}, {}}, state);
}

absl::StatusOr<LrScheduler> LrScheduler::Resume(SequentialLr schedule, absl::string_view state) {
  SHARDSTEP_RETURN_IF_ERROR(Check(schedule));
  const nlohmann::json json =
      nlohmann::json::parse(state, /*cb=*/nullptr, /*allow_exceptions=*/false);
  const auto integer = [&json](const char* key) -> std::optional<int64_t> {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number_integer()) return std::nullopt;
    return found->get<int64_t>();
  };
  const auto none = [](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("not the state of a learning rate scheduler: ", what));
  };
  if (!json.is_object()) return none("not a JSON object");
  const auto last_epoch = integer("last_epoch");
  const auto epoch = integer("epoch");
  const auto schedules = integer("schedules");
  const auto base_rates = json.find("base_lrs");
  if (!last_epoch || !epoch || !schedules || base_rates == json.end() || !base_rates->is_array() ||
      *epoch < 0 || *last_epoch < *epoch) {
    return none("expected last_epoch, epoch, schedules and base_lrs");
  }
  if (*schedules != static_cast<int64_t>(schedule.schedules.size())) {
    return absl::InvalidArgumentError(absl::StrCat("the state is of ", *schedules,
                                                   " schedules, one behind the other, expected ",
                                                   schedule.schedules.size()));
  }
  LrScheduler scheduler(std::move(schedule));
  scheduler.last_epoch_ = *last_epoch;
  scheduler.epoch_ = *epoch;
  for (const nlohmann::json& rate : *base_rates) {
    if (!rate.is_number()) return none("a rate is no number");
    scheduler.base_rates_.push_back(rate.get<double>());
  }
  return scheduler;
}

absl::Status LrScheduler::Step(ShardedOptimizer* optimizer) {
  const std::vector<double> before = RatesOf(*optimizer);
  std::vector<double> rates = before;
  Step(&rates);
  return SetRates(before, rates, optimizer);
}

void LrScheduler::Step(std::vector<double>* rates) {
  while (base_rates_.size() < rates->size()) base_rates_.push_back((*rates)[base_rates_.size()]);
  ++last_epoch_;
  const std::vector<int64_t>& milestones = schedule_.milestones;
  const size_t passed =
      std::upper_bound(milestones.begin(), milestones.end(), last_epoch_) - milestones.begin();
  const bool begins = passed > 0 && milestones[passed - 1] == last_epoch_;
  epoch_ = begins ? 0 : epoch_ + 1;
  const LrSchedule& schedule = schedule_.schedules[passed];
  for (size_t group = 0; group < rates->size(); ++group) {
    double& rate = (*rates)[group];
    rate = begins ? First(schedule, base_rates_[group])
                  : Next(schedule, epoch_, base_rates_[group], rate);
  }
}

std::string LrScheduler::SaveState() const {
  const nlohmann::json json = {{"last_epoch", last_epoch_},
                               {"epoch", epoch_},
                               {"schedules", schedule_.schedules.size()},
                               {"base_lrs", base_rates_}};
  return json.dump();
}

}  // namespace shardstep
