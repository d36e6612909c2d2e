#include "cli/answer_text.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/printable.h"

namespace nestrec {

std::string MillisecondsText(absl::Duration duration) {
  return absl::StrFormat("%.2f ms", absl::ToDoubleMilliseconds(duration));
}

absl::Status PrintJson(const google::protobuf::Message& message) {
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return absl::InternalError(
        absl::StrCat("cannot print the answer as JSON: ", status.ToString()));
  }
  std::fputs(json.c_str(), stdout);
  return absl::OkStatus();
}

void PrintUnknown(absl::string_view what,
                  const google::protobuf::RepeatedPtrField<std::string>& ids, uint32_t count) {
  if (count > 0) {
    std::printf(
        "not in the catalogue, skipped: %u %s (%s%s)\n", count, std::string(what).c_str(),
        Printable(absl::StrJoin(ids.begin(), std::next(ids.begin(), std::min(ids.size(), 5)), ", "))
            .c_str(),
        count > 5 ? ", ..." : "");
  }
}

}  // namespace nestrec
