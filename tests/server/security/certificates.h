// Certificates for tests: an authority, and what it signs. Elliptic keys (P-256), valid from
// yesterday for a year unless said otherwise. Everything is PEM.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"

namespace nestrec {

struct PemPair {
  std::string certificate, key;
};

class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name);
  ~TestAuthority();
  TestAuthority(const TestAuthority&) = delete;
  TestAuthority& operator=(const TestAuthority&) = delete;

  const std::string& certificate() const { return certificate_; }
  // For 127.0.0.1 and localhost, as server and as client.
  PemPair Sign(const std::string& common_name, absl::Duration valid = absl::Hours(24 * 365)) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::string certificate_;
};

}  // namespace nestrec
