#include "shardstep/examples/digits/digits_file.h"

#include <zlib.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

constexpr int kDarkest = 16;

absl::StatusOr<std::string> ReadCompressed(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) return absl::NotFoundError(absl::StrCat("\"", path, "\": cannot be opened"));
  std::string text;
  std::vector<char> buffer(1 << 16);
  for (;;) {
    const int count = gzread(file.get(), buffer.data(), static_cast<unsigned>(buffer.size()));
    // A file that was cut off gives what there is and 0 behind it, as at its end, but leaves an
    // error.
    int error = Z_OK;
    const char* const reason = gzerror(file.get(), &error);
    if (count < 0 || error != Z_OK)
      return absl::DataLossError(absl::StrCat("\"", path, "\": ", reason));
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(count));
  }
}

bool AppendRow(absl::string_view line, Digits* digits) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, ',');
  if (fields.size() != kPixels + 1) return false;
  for (int64_t i = 0; i < kPixels; ++i) {
    int pixel = 0;
    if (!absl::SimpleAtoi(fields[i], &pixel) || pixel < 0 || pixel > kDarkest) return false;
    digits->pixels.push_back(static_cast<float>(pixel) / kDarkest);
  }
  int64_t label = 0;
  if (!absl::SimpleAtoi(fields.back(), &label) || label < 0 || label >= kClasses) return false;
  digits->labels.push_back(label);
  return true;
}

}  // namespace

absl::StatusOr<Digits> ReadDigits(const std::string& path) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string text, ReadCompressed(path));
  Digits digits;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.empty()) continue;
    if (!AppendRow(line, &digits)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", path, "\", line ", number, ": expected ", kPixels, " integers from 0 to ", kDarkest,
          " and a label from 0 to ", kClasses - 1, ", with commas between them"));
    }
  }
  if (digits.rows() == 0)
    return absl::InvalidArgumentError(absl::StrCat("\"", path, "\": no rows"));
  return digits;
}

}  // namespace shardstep
