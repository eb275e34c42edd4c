#include "shardstep/tests/bench/report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace shardstep {

void Report::Add(const std::string& section, const std::string& name, double value,
                 const std::string& unit) {
  figures_.push_back({section, name, value, unit});
}

void Report::Bar(const std::string& name, Kind kind, double value, double bar, double aim) {
  const double judged = kind == Kind::kAtLeast ? bar * slack_ : bar / slack_;
  const bool holds = kind == Kind::kAtLeast ? value >= judged : value <= judged;
  bars_.push_back({name, kind, value, judged, aim, holds});
}

std::string Report::Table() const {
  std::string text;
  std::string section;
  for (const Figure& figure : figures_) {
    if (figure.section != section) absl::StrAppend(&text, "\n", figure.section, "\n");
    section = figure.section;
    absl::StrAppendFormat(&text, "  %-58s %12.4g %s\n", figure.name, figure.value, figure.unit);
  }
  absl::StrAppend(&text, "\nbars\n");
  for (const BarFigure& bar : bars_) {
    absl::StrAppendFormat(&text, "  %-58s %12.3g %s %.3g%s  %s\n", bar.name, bar.value,
                          bar.kind == Kind::kAtLeast ? ">=" : "<=", bar.bar,
                          bar.aim == 0 ? "" : absl::StrFormat(" (aim %.3g)", bar.aim),
                          bar.holds ? "ok" : "MISSED");
  }
  if (!void_.empty()) absl::StrAppend(&text, "void: ", void_, "\n");
  return text;
}

std::string Report::Json() const {
  nlohmann::json json;
  json["figures"] = nlohmann::json::array();
  for (const Figure& figure : figures_) {
    json["figures"].push_back({{"section", figure.section},
                               {"name", figure.name},
                               {"value", figure.value},
                               {"unit", figure.unit}});
  }
  json["bars"] = nlohmann::json::array();
  for (const BarFigure& bar : bars_) {
    json["bars"].push_back({{"name", bar.name},
                            {"value", bar.value},
                            {bar.kind == Kind::kAtLeast ? "at_least" : "at_most", bar.bar},
                            {"holds", bar.holds}});
  }
  json["void"] = void_;
  return json.dump(2);
}

std::string Report::Missed() const {
  std::vector<std::string> missed;
  for (const BarFigure& bar : bars_) {
    if (!bar.holds) missed.push_back(absl::StrFormat("%s (%.3g)", bar.name, bar.value));
  }
  std::vector<std::string> parts;
  if (!void_.empty()) parts.push_back(absl::StrCat("void: ", void_));
  if (!missed.empty()) parts.push_back(absl::StrCat("missed: ", absl::StrJoin(missed, ", ")));
  return absl::StrJoin(parts, "; ");
}

}  // namespace shardstep
