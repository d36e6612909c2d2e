#include "server/security/pem.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

Owned<BIO> Over(const std::string& text) {
  return Owned<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// Asks nobody for a pass phrase.
int NoPassPhrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*data*/) { return 0; }

Owned<X509> FirstCertificate(const std::string& text) {
  Owned<X509> certificate(PEM_read_bio_X509(Over(text).get(), nullptr, NoPassPhrase, nullptr));
  ERR_clear_error();
  return certificate;
}

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfiniteFuture();
  return absl::FromTM(parts, absl::UTCTimeZone());
}

std::string SubjectOf(X509* certificate) {
  Owned<BIO> out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

}  // namespace

absl::StatusOr<TlsIdentity> ReadTlsIdentity(const TlsFiles& files) {
  TlsIdentity identity;
  NESTREC_ASSIGN_OR_RETURN(identity.certificate, ReadFile(files.certificate, kMaxBytes));
  NESTREC_ASSIGN_OR_RETURN(identity.key, ReadFile(files.key, kMaxBytes));
  const Owned<X509> certificate = FirstCertificate(identity.certificate);
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        files.certificate, " holds no certificate; it must be PEM, the server's own first"));
  }
  const Owned<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(Over(identity.key).get(), nullptr, NoPassPhrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, " holds no private key; it must be PEM, without a pass phrase"));
  }
  const bool belongs = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!belongs) {
    return absl::InvalidArgumentError(absl::StrCat(files.key, " is not the key of ",
                                                   files.certificate, "; give both of one pair"));
  }
  if (!files.client_ca.empty()) {
    NESTREC_ASSIGN_OR_RETURN(identity.client_ca, ReadFile(files.client_ca, kMaxBytes));
    if (FirstCertificate(identity.client_ca) == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(files.client_ca, " holds no certificate; it must be PEM"));
    }
  }
  identity.expires = TimeOf(X509_get0_notAfter(certificate.get()));
  identity.subject = SubjectOf(certificate.get());
  return identity;
}

}  // namespace nestrec
