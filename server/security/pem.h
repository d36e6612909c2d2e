// Certificates and keys as files hold them, checked before a server takes them up.
//
// Thread safety: pure functions, but for the files.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nestrec {

// Paths of PEM files.
struct TlsFiles {
  std::string certificate;  // the server's, with its chain
  std::string key;          // the certificate's, without a pass phrase
  std::string client_ca;    // whoever has a certificate of one of these may call; empty: everybody

  bool any() const { return !certificate.empty() || !key.empty() || !client_ca.empty(); }
};

struct TlsIdentity {
  std::string certificate, key;  // PEM
  std::string client_ca;         // PEM; empty: none
  absl::Time expires;            // the certificate
  std::string subject;           // of the certificate, for logs

  bool SameAs(const TlsIdentity& other) const {
    return certificate == other.certificate && key == other.key && client_ca == other.client_ca;
  }
};

// kInvalidArgument, naming the file and the cure, for one that holds no certificate or no key, and
// for a key that is not the certificate's. Errors of ReadFile. The key is in no message.
absl::StatusOr<TlsIdentity> ReadTlsIdentity(const TlsFiles& files);

}  // namespace nestrec
