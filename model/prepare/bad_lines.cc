#include "model/prepare/bad_lines.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/printable.h"

namespace nestrec {

absl::Status BadLines::Add(absl::string_view path, int64_t line, absl::string_view what) {
  ++count_;
  const bool too_many = limit_.has_value() && count_ > *limit_;
  if (static_cast<int64_t>(messages_.size()) < shown_ || (too_many && messages_.empty())) {
    messages_.push_back(Printable(absl::StrCat(path, ":", line, ": ", what)));
  }
  if (!too_many) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(*limit_ == 0 ? std::string("a line cannot be used, and none may be bad")
                                : absl::StrCat("more than ", *limit_, " lines cannot be used"),
                   " (--strict, --max-bad-lines):\n", ToString()));
}

std::string BadLines::ToString() const {
  std::string text = absl::StrJoin(
      messages_, "\n",
      [](std::string* out, const std::string& message) { absl::StrAppend(out, "  ", message); });
  const int64_t more = count_ - static_cast<int64_t>(messages_.size());
  if (more > 0) absl::StrAppend(&text, text.empty() ? "" : "\n", "  ... and ", more, " more");
  return text;
}

}  // namespace nestrec
