// What keeps a server's listeners safe: TLS, tokens and rate limits, taken from files that are
// looked at again while it runs.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/log.h"
#include "server/mutex.h"
#include "server/security/access_control.h"
#include "server/security/pem.h"
#include "server/security/tls_credentials.h"

namespace nestrec {

struct SecurityOptions {
  TlsFiles tls;  // none: plain text
  AccessControl::Options access;
  absl::Duration refresh = absl::Seconds(5);  // how often to look at the files
};

class Security {
 public:
  // kInvalidArgument for a certificate without a key, a key without a certificate, a client CA
  // without both; errors of TlsCredentials::Create and AccessControl::Create.
  static absl::StatusOr<std::unique_ptr<Security>> Create(const SecurityOptions& options,
                                                          const Log& log);
  ~Security();

  std::shared_ptr<grpc::ServerCredentials> credentials() const;
  AccessControl& access() { return *access_; }
  // When the certificate ends; InfiniteFuture() without one.
  absl::Time certificate_expires() const {
    return tls_ == nullptr ? absl::InfiniteFuture() : tls_->expires();
  }

 private:
  Security() = default;
  void Watch(absl::Duration refresh);

  std::unique_ptr<TlsCredentials> tls_;  // null: plain text
  std::unique_ptr<AccessControl> access_;
  Mutex mutex_;
  ConditionVariable changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // not joinable where there is nothing to look at
};

}  // namespace nestrec
