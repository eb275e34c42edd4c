#include "shardstep/checkpoint/sha256.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"

namespace shardstep {

struct Sha256::Context {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> evp{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  if (context_->evp == nullptr ||
      EVP_DigestInit_ex(context_->evp.get(), EVP_sha256(), nullptr) != 1) {
    context_.reset();
  }
}

Sha256::~Sha256() = default;

void Sha256::Update(absl::string_view data) {
  if (context_ != nullptr && EVP_DigestUpdate(context_->evp.get(), data.data(), data.size()) != 1) {
    context_.reset();
  }
}

absl::StatusOr<std::string> Sha256::Finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (context_ == nullptr || EVP_DigestFinal_ex(context_->evp.get(), digest, &size) != 1) {
    return absl::InternalError("SHA-256: the cryptographic library failed");
  }
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

absl::StatusOr<std::string> Sha256Hex(absl::string_view data) {
  Sha256 sha256;
  sha256.Update(data);
  return sha256.Finish();
}

}  // namespace shardstep
