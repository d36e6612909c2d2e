#include "server/http_request.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace nestrec {

size_t HttpHeadSize(absl::string_view bytes) {
  const size_t with = bytes.find("\n\r\n");
  const size_t without = bytes.find("\n\n");
  const size_t end = std::min(with == absl::string_view::npos ? with : with + 3,
                              without == absl::string_view::npos ? without : without + 2);
  return end == absl::string_view::npos ? 0 : end;
}

std::optional<HttpRequest> ParseHttpHead(absl::string_view head) {
  const absl::string_view line = absl::StripSuffix(head.substr(0, head.find('\n')), "\r");
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  if (words.size() != 3 || words[0].empty() || words[1].empty() || words[1][0] != '/' ||
      (words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0")) {
    return std::nullopt;
  }
  HttpRequest request;
  if (words[0] == "GET") request.kind = HttpRequest::Kind::kGet;
  if (words[0] == "HEAD") request.kind = HttpRequest::Kind::kHead;
  request.path = std::string(words[1].substr(0, words[1].find('?')));
  return request;
}

}  // namespace nestrec
