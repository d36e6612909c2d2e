// What an HTTP/1 client asks for, as far as a listener of a few pages has to know.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace nestrec {

struct HttpRequest {
  enum class Kind { kGet, kHead, kOther };
  Kind kind = Kind::kOther;
  std::string path;  // without query
};

// How much of `bytes`, which a client sent, is the head of a request, its empty line included; 0
// while it has no end yet. Lines may end without a carriage return, as in curl's and people's
// hands.
size_t HttpHeadSize(absl::string_view bytes);

// Nothing for what is no HTTP/1.0 or HTTP/1.1 request. `head` as HttpHeadSize found it.
std::optional<HttpRequest> ParseHttpHead(absl::string_view head);

}  // namespace nestrec
