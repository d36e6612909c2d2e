// Who may call, by bearer token: a file with a line per client.
//
//   # name   token                                  role
//   shop     c0f6...                                          (may call RecommendService)
//   batch    sha256:9f86d081884c7d659a2feaa0c55ad015...       (the token's SHA-256, in hex)
//   operator 5d41...                                 admin    (may call AdminService as well)
//
// Tokens are kept as SHA-256 digests and compared in constant time, all of them, whichever is
// right.
//
// Thread safety: immutable once made.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nestrec {

class TokenTable {
 public:
  static constexpr size_t kLeastTokenBytes = 16;
  static constexpr size_t kMostTokenBytes = 1024;
  static constexpr size_t kMostClients = 10'000;

  struct Client {
    std::string name;  // may stand on several lines: while a token is exchanged, both are good
    bool admin = false;
  };

  // kInvalidArgument, with the source's name and the line but never a token, for a line that is not
  // as above, a short or long token, one that two lines have, no clients and too many.
  static absl::StatusOr<TokenTable> Parse(absl::string_view text, absl::string_view source);
  // Errors of ReadFile besides.
  static absl::StatusOr<TokenTable> Read(const std::string& path);

  // Null when nobody has this token.
  const Client* Find(absl::string_view token) const;
  size_t size() const { return entries_.size(); }

 private:
  using Digest = std::array<unsigned char, 32>;
  struct Entry {
    Digest digest;
    Client client;
  };

  static Digest DigestOf(absl::string_view token);

  std::vector<Entry> entries_;
};

}  // namespace nestrec
