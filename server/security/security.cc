#include "server/security/security.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace nestrec {

absl::StatusOr<std::unique_ptr<Security>> Security::Create(const SecurityOptions& options,
                                                           const Log& log) {
  std::unique_ptr<Security> security(new Security());
  const TlsFiles& tls = options.tls;
  if (tls.any() && (tls.certificate.empty() || tls.key.empty())) {
    return absl::InvalidArgumentError(
        absl::StrCat("TLS needs a certificate and its key; the ",
                     tls.certificate.empty() ? "certificate is missing" : "key is missing"));
  }
  if (tls.any()) {
    NESTREC_ASSIGN_OR_RETURN(security->tls_, TlsCredentials::Create(tls, log));
  }
  NESTREC_ASSIGN_OR_RETURN(security->access_, AccessControl::Create(options.access, log));
  if (tls.any() || !options.access.token_file.empty()) {
    security->thread_ =
        std::thread([raw = security.get(), refresh = options.refresh] { raw->Watch(refresh); });
  }
  return security;
}

Security::~Security() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<grpc::ServerCredentials> Security::credentials() const {
  return tls_ == nullptr ? grpc::InsecureServerCredentials() : tls_->credentials();
}

void Security::Watch(absl::Duration refresh) {
  while (true) {
    const auto next = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(refresh);
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && changed_.WaitUntil(mutex_, next)) {
      }
      if (stopping_) return;
    }
    if (tls_ != nullptr) tls_->Refresh();
    access_->Refresh();
  }
}

}  // namespace nestrec
