#include "shardstep/server/decision.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/squared_norm.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

Verdict Abort(absl::Status reason, bool drop_pushes = false) {
  Verdict verdict;
  verdict.decision.set_outcome(v1::Decision::ABORT);
  verdict.decision.set_drop_pushes(drop_pushes);
  verdict.reason = std::move(reason);
  return verdict;
}

// A server lacks pushes or cannot prepare.
std::optional<Verdict> Unprepared(const std::vector<v1::Prepared>& answers,
                                  const OptimizerFacts& facts) {
  v1::ErrorDetail detail;
  std::string where;
  for (size_t server = 0; server < answers.size(); ++server) {
    const v1::Prepared& answer = answers[server];
    if (answer.has_error()) {
      return Abort(FromRichStatus(answer.error()));
    }
    if (answer.missing().empty()) continue;
    v1::MissingPushes* missing = detail.add_missing();
    missing->set_server_rank(server);
    *missing->mutable_pushes() = answer.missing();
    for (const v1::PushRange& range : answer.missing()) {
      absl::StrAppend(&where, where.empty() ? "" : ", ", "server ", server, " lacks pushes ",
                      range.first(), " to ", range.last(), " of session ", range.session());
    }
  }
  if (where.empty()) return std::nullopt;
  detail.set_reason(v1::MISSING);
  detail.set_optimizer(facts.name);
  detail.set_version(facts.version);
  detail.set_lineage(facts.lineage);
  detail.set_server_rank(-1);
  return Abort(MakeError(absl::StatusCode::kAborted,
                         absl::StrCat("optimizer \"", facts.name, "\": ", where), detail));
}

}  // namespace

Verdict Decide(const v1::Prepare& request, const std::vector<v1::Prepared>& answers,
               const v1::OptimizerDefinition& definition, const OptimizerFacts& facts) {
  if (auto unprepared = Unprepared(answers, facts)) return *std::move(unprepared);
  Verdict verdict;
  verdict.decision.set_outcome(v1::Decision::COMMIT);
  if (!request.has_step()) return verdict;

  const v1::StepOptions& options = request.step().options();
  SquaredNorm squares;
  std::optional<uint64_t> computed_on;
  const v1::Prepared* non_finite = nullptr;
  for (const v1::Prepared& answer : answers) {
    if (answer.touched_digest() != answers[0].touched_digest()) {
      return Abort(absl::AbortedError(absl::StrCat(
          "optimizer \"", facts.name,
          "\": the servers saw different sets of parameters touched by the same pushes")));
    }
    squares = Sum(squares, {answer.squared_norm_hi(), answer.squared_norm_lo()});
    if (answer.has_computed_on()) {
      computed_on = std::min(computed_on.value_or(answer.computed_on()), answer.computed_on());
    }
    if (answer.non_finite() && (non_finite == nullptr || answer.non_finite_parameter() <
                                                             non_finite->non_finite_parameter())) {
      non_finite = &answer;
    }
  }
  if (definition.mode().has_asynchronous() && computed_on.has_value()) {
    const uint64_t staleness =
        request.version() - 1 - std::min(*computed_on, request.version() - 1);
    const uint64_t bound = definition.mode().asynchronous().max_staleness();
    if (staleness > bound) {
      return Abort(
          OptimizerError(
              facts, absl::StatusCode::kAborted, v1::GRADIENT_TOO_OLD,
              absl::StrCat("optimizer \"", facts.name, "\": a gradient computed on version ",
                           *computed_on, " would become version ", request.version(), ": ",
                           staleness, " versions old, max_staleness is ", bound)),
          /*drop_pushes=*/true);
    }
  }
  const bool float64 =
      std::any_of(definition.parameters().begin(), definition.parameters().end(),
                  [](const v1::Parameter& parameter) { return parameter.dtype() == v1::FLOAT64; });
  verdict.decision.set_grad_norm(Norm(squares, float64));
  if (non_finite != nullptr && options.non_finite() == v1::REFUSE) {
    return Abort(OptimizerError(
                     facts, absl::StatusCode::kAborted, v1::NONFINITE,
                     absl::StrCat("optimizer \"", facts.name, "\": the gradient of parameter \"",
                                  definition.parameters(non_finite->non_finite_parameter()).name(),
                                  "\" is not finite; version ", facts.version,
                                  " stays, the pushes are dropped")),
                 /*drop_pushes=*/true);
  }
  if (non_finite != nullptr && options.non_finite() == v1::SKIP) {
    verdict.decision.set_outcome(v1::Decision::SKIP);
  } else if (options.clip_grad_norm() > 0) {
    verdict.decision.set_coefficient(
        ClipCoefficient(verdict.decision.grad_norm(), options.clip_grad_norm(), float64));
  }
  return verdict;
}

}  // namespace shardstep
