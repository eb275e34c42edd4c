#include "shardstep/wire/pages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "shardstep/wire/crc32c.h"

namespace shardstep {
namespace {

absl::Status Refuse(const v1::Page& page, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("page ", page.index(), " of \"",
                                                 absl::CHexEscape(page.digest().substr(0, 32)),
                                                 "\": ", what));
}

}  // namespace

std::string PageDigest(absl::string_view whole) {
  return absl::StrCat(Crc32cHex(Crc32c(whole)), "-", whole.size());
}

PagedMessage::PagedMessage(std::string serialized)
    : serialized_(std::move(serialized)), digest_(PageDigest(serialized_)) {}

uint32_t PagedMessage::count() const {
  return std::max<size_t>(1, (serialized_.size() + kMaxPageBytes - 1) / kMaxPageBytes);
}

absl::StatusOr<v1::Page> PagedMessage::page(uint32_t index) const {
  if (count() > kMaxPages) {
    return absl::InvalidArgumentError(absl::StrCat(
        "message of ", serialized_.size(), " bytes, expected at most ", kMaxPages * kMaxPageBytes));
  }
  if (index >= count()) {
    return absl::InvalidArgumentError(
        absl::StrCat("page ", index, ", the message has ", count(), " pages"));
  }
  v1::Page page;
  page.set_digest(digest_);
  page.set_index(index);
  page.set_count(count());
  page.set_data(serialized_.substr(index * kMaxPageBytes, kMaxPageBytes));
  return page;
}

absl::Status PageCollector::Add(const v1::Page& page) {
  if (page.count() < 1 || page.count() > kMaxPages) {
    return Refuse(page, absl::StrCat(page.count(), " pages, expected 1 to ", kMaxPages));
  }
  if (page.index() >= page.count()) {
    return Refuse(page, absl::StrCat("there are ", page.count(), " pages"));
  }
  if (page.data().size() > kMaxPageBytes) {
    return Refuse(page,
                  absl::StrCat(page.data().size(), " bytes, expected at most ", kMaxPageBytes));
  }
  size_t declared = 0;
  const size_t dash = page.digest().find('-');
  if (dash != 8 || !absl::SimpleAtoi(page.digest().substr(dash + 1), &declared)) {
    return Refuse(page, "the digest is not a checksum and a length, as in e3069283-9");
  }
  if (declared > max_bytes_) {
    return Refuse(page,
                  absl::StrCat("message of ", declared, " bytes, expected at most ", max_bytes_));
  }
  if (count_ > 0 && (page.digest() != digest_ || page.count() != count_)) {
    return Refuse(page, absl::StrCat("other pages are of ", count_, " of \"", digest_, "\""));
  }
  if (page.index() != next_) return absl::OkStatus();
  if (page.data().size() > declared - whole_.size()) {
    return Refuse(page, absl::StrCat("reaches beyond the ", declared, " bytes of the message"));
  }
  digest_ = page.digest();
  count_ = page.count();
  whole_ += page.data();
  ++next_;
  return absl::OkStatus();
}

absl::StatusOr<std::string> PageCollector::Take() {
  if (!complete()) {
    return absl::InvalidArgumentError(
        absl::StrCat("message is not complete: ", next_, " of ", count_, " pages"));
  }
  PageCollector taken = std::exchange(*this, PageCollector(max_bytes_));
  if (PageDigest(taken.whole_) != taken.digest_) {
    return absl::InvalidArgumentError(absl::StrCat("pages of \"", taken.digest_,
                                                   "\": their bytes are those of \"",
                                                   PageDigest(taken.whole_), "\""));
  }
  return std::move(taken.whole_);
}

}  // namespace shardstep
