// Server credentials whose certificate changes while the server runs: files are looked at again and
// again, checked, and taken up by the connections that follow. Files that cannot be taken up change
// nothing.
//
// gRPC's own file watcher takes what it finds, a key without its certificate or nothing at all
// included. So it is given files of ours that hold what was checked: anonymous memory under
// /proc/self/fd, exchanged as a whole.
//
// Thread safety: Refresh from one thread at a time; the others from any.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/log.h"
#include "server/security/pem.h"

namespace nestrec {

class TlsCredentials {
 public:
  // Errors of ReadTlsIdentity; kUnavailable where /proc or memory files are missing. Logs
  // tls_certificate with subject and expiry.
  static absl::StatusOr<std::unique_ptr<TlsCredentials>> Create(const TlsFiles& files,
                                                                const Log& log);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  // TLS 1.2 and later. With client_ca a client must have a certificate.
  std::shared_ptr<grpc::ServerCredentials> credentials() const { return credentials_; }
  // Takes up what the files hold now, from new connections on, within some seconds. Logs
  // tls_certificate when that is another one, tls_certificate_refused when it cannot.
  void Refresh();
  absl::Time expires() const { return absl::FromUnixSeconds(expires_.load()); }

 private:
  TlsCredentials(TlsFiles files, Log log) : files_(std::move(files)), log_(std::move(log)) {}
  absl::Status Take(const TlsIdentity& identity);

  const TlsFiles files_;
  const Log log_;
  TlsIdentity current_;
  std::string said_;
  std::atomic<int64_t> expires_{0};
  int pair_fd_ = -1, ca_fd_ = -1;  // what gRPC reads
  std::shared_ptr<grpc::ServerCredentials> credentials_;
};

}  // namespace nestrec
