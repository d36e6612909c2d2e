#include "server/security/tls_credentials.h"

#include <fcntl.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr unsigned kGrpcLooksEverySeconds = 1;

std::string PathOf(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

// An anonymous file that holds `text`.
absl::StatusOr<int> MemoryFile(const std::string& text) {
  const int fd = memfd_create("nestrec-tls", MFD_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot make", "a file in memory for TLS");
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = write(fd, text.data() + done, text.size() - done);
    if (written <= 0) {
      const absl::Status status = ErrnoStatus(errno, "cannot write", "a file in memory for TLS");
      close(fd);
      return status;
    }
    done += static_cast<size_t>(written);
  }
  return fd;
}

// Makes `fd` mean a file with this text, at once; opens it where it is -1.
absl::Status Exchange(const std::string& text, int& fd) {
  NESTREC_ASSIGN_OR_RETURN(const int fresh, MemoryFile(text));
  if (fd < 0) {
    fd = fresh;
    return absl::OkStatus();
  }
  const int result = dup3(fresh, fd, O_CLOEXEC);
  const int error = errno;
  close(fresh);
  return result < 0 ? ErrnoStatus(error, "cannot exchange", "a file in memory for TLS")
                    : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsCredentials>> TlsCredentials::Create(const TlsFiles& files,
                                                                       const Log& log) {
  NESTREC_ASSIGN_OR_RETURN(const TlsIdentity identity, ReadTlsIdentity(files));
  std::unique_ptr<TlsCredentials> tls(new TlsCredentials(files, log));
  NESTREC_RETURN_IF_ERROR(tls->Take(identity));
  if (access(PathOf(tls->pair_fd_).c_str(), R_OK) != 0) {
    return absl::UnavailableError("TLS needs /proc; mount it");
  }
  // One file for both: gRPC finds the key and the certificates in it, always of one pair.
  const std::string pair = PathOf(tls->pair_fd_);
  auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      pair, pair, tls->ca_fd_ < 0 ? "" : PathOf(tls->ca_fd_), kGrpcLooksEverySeconds);
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  if (tls->ca_fd_ >= 0) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  tls->credentials_ = grpc::experimental::TlsServerCredentials(options);
  return tls;
}

TlsCredentials::~TlsCredentials() {
  credentials_.reset();
  if (pair_fd_ >= 0) close(pair_fd_);
  if (ca_fd_ >= 0) close(ca_fd_);
}

absl::Status TlsCredentials::Take(const TlsIdentity& identity) {
  NESTREC_RETURN_IF_ERROR(
      Exchange(absl::StrCat(identity.certificate, "\n", identity.key, "\n"), pair_fd_));
  if (!identity.client_ca.empty()) NESTREC_RETURN_IF_ERROR(Exchange(identity.client_ca, ca_fd_));
  current_ = identity;
  expires_ = absl::ToUnixSeconds(identity.expires);
  const std::string expires =
      absl::FormatTime(absl::RFC3339_sec, identity.expires, absl::UTCTimeZone());
  if (identity.expires <= absl::Now()) {
    log_.Warning("tls_certificate_expired",
                 {{"path", files_.certificate}, {"subject", identity.subject}, {"since", expires}});
  } else {
    log_.Info("tls_certificate", {{"subject", identity.subject},
                                  {"expires", expires},
                                  {"client_certificates", ca_fd_ < 0 ? "not asked" : "required"}});
  }
  return absl::OkStatus();
}

void TlsCredentials::Refresh() {
  absl::StatusOr<TlsIdentity> identity = ReadTlsIdentity(files_);
  absl::Status status = identity.status();
  if (status.ok() && !identity->SameAs(current_)) status = Take(*identity);
  const std::string says(status.message());
  if (says != said_ && !says.empty()) {
    log_.Warning("tls_certificate_refused", {{"why", says}, {"then", "the old one serves"}});
  }
  said_ = says;
}

}  // namespace nestrec
