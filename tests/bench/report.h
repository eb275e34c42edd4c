// What a run of shardstep_bench has found: figures and bars, for people and for scripts.
#ifndef SHARDSTEP_TESTS_BENCH_REPORT_H_
#define SHARDSTEP_TESTS_BENCH_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace shardstep {

// Confined to one thread. Nothing blocks.
class Report {
 public:
  enum class Kind { kAtLeast, kAtMost };

  // `slack`: what 'at least' bars are multiplied and 'at most' bars divided by, for short runs.
  explicit Report(double slack) : slack_(slack) {}

  // One figure of a section, in the order of the table.
  void Add(const std::string& section, const std::string& name, double value,
           const std::string& unit);
  // What must hold; `aim` 0: there is none beyond the bar.
  void Bar(const std::string& name, Kind kind, double value, double bar, double aim = 0);
  // Why no bar can be judged: a reference is no good one.
  void Void(const std::string& why) { void_ = why; }

  std::string Table() const;
  std::string Json() const;
  // Empty: every bar holds. Else which do not, in one line.
  std::string Missed() const;

 private:
  struct Figure {
    std::string section, name;
    double value;
    std::string unit;
  };
  struct BarFigure {
    std::string name;
    Kind kind;
    double value, bar, aim;
    bool holds;
  };

  const double slack_;
  std::vector<Figure> figures_;
  std::vector<BarFigure> bars_;
  std::string void_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REPORT_H_
