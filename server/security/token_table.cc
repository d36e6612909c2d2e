#include "server/security/token_table.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr size_t kMaxFileBytes = 16 << 20;
constexpr size_t kMaxNameBytes = 64;
constexpr absl::string_view kDigestPrefix = "sha256:";
constexpr absl::string_view kAdmin = "admin";

bool IsName(absl::string_view name) {
  return name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' ||
                  c == '.';
         });
}

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); });
}

}  // namespace

TokenTable::Digest TokenTable::DigestOf(absl::string_view token) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

absl::StatusOr<TokenTable> TokenTable::Parse(absl::string_view text, absl::string_view source) {
  TokenTable table;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    const auto error = [&](auto&&... parts) {
      return absl::InvalidArgumentError(absl::StrCat(source, ":", number, ": ", parts...));
    };
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (words.size() < 2 || words.size() > 3 || (words.size() == 3 && words[2] != kAdmin)) {
      return error("a line is a name, a token and, for operators, the word admin");
    }
    if (!IsName(words[0])) {
      return error("a name has at most ", kMaxNameBytes, " letters, digits, '_', '-' and '.'");
    }
    Entry entry{.digest = {},
                .client = {.name = std::string(words[0]), .admin = words.size() == 3}};
    if (absl::string_view hex = words[1]; absl::ConsumePrefix(&hex, kDigestPrefix)) {
      if (hex.size() != 2 * entry.digest.size() || !IsHex(hex)) {
        return error("sha256: is followed by ", 2 * entry.digest.size(), " hex digits, not by ",
                     hex.size(), " characters");
      }
      const std::string bytes = absl::HexStringToBytes(hex);
      std::copy(bytes.begin(), bytes.end(), entry.digest.begin());
    } else {
      if (words[1].size() < kLeastTokenBytes || words[1].size() > kMostTokenBytes) {
        return error("the token of ", words[0], " has ", words[1].size(), " bytes; it needs ",
                     kLeastTokenBytes, " to ", kMostTokenBytes, ", such as `openssl rand -hex 32`");
      }
      entry.digest = DigestOf(words[1]);
    }
    for (const Entry& other : table.entries_) {
      if (other.digest == entry.digest) {
        return error("the token of ", words[0], " is also that of ", other.client.name);
      }
    }
    table.entries_.push_back(std::move(entry));
    if (table.entries_.size() > kMostClients) {
      return error("more than ", kMostClients, " tokens");
    }
  }
  if (table.entries_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        source, " holds no token, so nobody could call; add a line with a name and a token"));
  }
  return table;
}

absl::StatusOr<TokenTable> TokenTable::Read(const std::string& path) {
  NESTREC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  return Parse(text, path);
}

const TokenTable::Client* TokenTable::Find(absl::string_view token) const {
  if (token.size() > kMostTokenBytes) return nullptr;
  const Digest digest = DigestOf(token);
  const Client* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) {
      found = &entry.client;
    }
  }
  return found;
}

}  // namespace nestrec
