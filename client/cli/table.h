// Tables for people: columns as wide as their widest cell. Plain data, for one thread.
#ifndef SHARDSTEP_CLIENT_CLI_TABLE_H_
#define SHARDSTEP_CLIENT_CLI_TABLE_H_

#include <string>
#include <vector>

namespace shardstep {

class Table {
 public:
  // A heading that begins with '>' (which is not shown) makes its column flush right, as numbers
  // are.
  explicit Table(std::vector<std::string> headings);

  // One cell for each column; what is missing stays empty.
  void AddRow(std::vector<std::string> cells);

  // The headings and the rows, a line each, without blanks at the end of a line. Control characters
  // are shown as '?', so that no name can rewrite a terminal.
  std::string ToString() const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;  // the first are the headings
};

// "0 B", "1.5 MiB".
std::string FormatBytes(unsigned long long bytes);

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_TABLE_H_
