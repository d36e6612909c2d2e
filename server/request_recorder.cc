#include "server/request_recorder.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json_text.h"
#include "base/status_macros.h"
#include "server/sampling.h"

namespace nestrec {
namespace {

constexpr uint64_t kRequestLog = SaltOf("request log");

std::string LineOf(absl::string_view type) {
  return absl::StrCat("{\"type\":\"", type, "\",\"time\":\"",
                      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()),
                      "\"");
}

void AddText(absl::string_view key, absl::string_view text, std::string& line) {
  absl::StrAppend(&line, ",\"", key, "\":");
  AppendJsonText(text, line);
}

void AddMilliseconds(absl::string_view key, absl::Duration time, std::string& line) {
  absl::StrAppend(&line, ",\"", key,
                  "\":", absl::StrFormat("%.3f", absl::ToDoubleMilliseconds(time)));
}

// The ids of the last items of `history`; 0 is one that the catalogue has not.
void AddIds(const ItemView& items, std::span<const int32_t> history, bool& first,
            std::string& line) {
  for (const int32_t item : history) {
    if (item == 0) continue;
    line += first ? "" : ",";
    AppendJsonText(items.id(item), line);
    first = false;
  }
}

void AddHistory(const RecommendQuery& query, const ItemView& items, std::string& line) {
  constexpr size_t kMost = RequestRecorder::kMaxHistory;
  const std::span<const int32_t> sent(query.history);
  const std::span<const int32_t> last = sent.last(std::min(sent.size(), kMost));
  bool first = true;
  line += ",\"history\":[";
  if (query.session.has_value()) {
    const std::span<const int32_t> session(query.session->items);
    AddIds(items, session.last(std::min(session.size(), kMost - last.size())), first, line);
  }
  AddIds(items, last, first, line);
  line += ']';
}

}  // namespace

absl::StatusOr<std::unique_ptr<RequestRecorder>> RequestRecorder::Open(const Options& options,
                                                                       const Log& log) {
  NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<LineFile> file, LineFile::Open(options.file, log));
  return std::unique_ptr<RequestRecorder>(new RequestRecorder(options.share, std::move(file)));
}

bool RequestRecorder::SamplesUser(absl::string_view user_id) const {
  return SampleOf(kRequestLog, user_id) < share_;
}

void RequestRecorder::Served(const RecommendCall& call, const RecommendCall::Answered& answered) {
  const RecommendQuery& query = call.query;
  const bool sampled =
      query.user_id.empty()
          ? SampleOf(kRequestLog, calls_.fetch_add(1, std::memory_order_relaxed)) < share_
          : SamplesUser(query.user_id);
  if (!sampled) return;
  // Likeness is no history that a model could be trained on.
  if (query.similar_to.has_value()) return;
  const ItemView& items = *call.items;
  std::string line = LineOf(query.vector_only ? "encode" : "request");
  if (!call.request_id.empty()) AddText("request_id", call.request_id, line);
  if (!query.user_id.empty()) AddText("user_id", query.user_id, line);
  AddHistory(query, items, line);
  if (!query.vector_only) absl::StrAppend(&line, ",\"k\":", query.k);
  absl::StrAppend(&line, ",\"dim\":", answered.width.dim);
  AddText("tier", answered.width.tier, line);
  AddText("why", WidthReasonName(answered.width.why), line);
  const SearchResult& result = answered.recommendation.result;
  if (!query.vector_only) absl::StrAppend(&line, ",\"exact\":", result.exact ? "true" : "false");
  AddText("model_version", call.snapshot->version(), line);
  AddMilliseconds("queue_ms", answered.queued, line);
  AddMilliseconds("encode_ms", answered.recommendation.encode, line);
  if (query.vector_only) {
    line += '}';
    file_->Add(line);
    return;
  }
  AddMilliseconds("search_ms", answered.recommendation.search, line);
  line += ",\"items\":[";
  for (size_t i = 0; i < std::min(result.items.size(), kMaxItems); ++i) {
    absl::StrAppend(&line, i == 0 ? "" : ",", "{\"id\":");
    AppendJsonText(answered.recommendation.items->id(result.items[i].item), line);
    absl::StrAppend(&line, ",\"score\":", absl::StrFormat("%.9g", result.items[i].score), "}");
  }
  line += "]}";
  file_->Add(line);
}

void RequestRecorder::Recorded(const RecordQuery& query) {
  if (!SamplesUser(query.user_id)) return;
  std::string line = LineOf("events");
  AddText("user_id", query.user_id, line);
  line += ",\"events\":[";
  for (size_t i = 0; i < query.events.size(); ++i) {
    absl::StrAppend(&line, i == 0 ? "" : ",", "{\"item_id\":");
    AppendJsonText(query.events[i].item_id, line);
    absl::StrAppend(&line, ",\"time_ms\":", absl::ToUnixMillis(query.events[i].time), "}");
  }
  line += "]}";
  file_->Add(line);
}

void RequestRecorder::Forgotten(absl::string_view user_id) {
  if (!SamplesUser(user_id)) return;
  std::string line = LineOf("forget");
  AddText("user_id", user_id, line);
  line += '}';
  file_->Add(line);
}

std::unique_ptr<Metrics::Registration> CollectRecorder(Metrics& metrics,
                                                       const RequestRecorder& recorder) {
  return metrics.Collect([&recorder](MetricWriter& writer) {
    const LineFile::Stats stats = recorder.stats();
    const auto dropped = [&](const char* reason, int64_t count) {
      writer.Counter(
          "nestrec_request_log_dropped_total",
          "Lines of the request log that were left out: queue: the disk was too slow; disk: it "
          "refused them.",
          static_cast<double>(count), {{"reason", reason}});
    };
    writer.Counter("nestrec_request_log_lines_total", "Lines of the request log.",
                   static_cast<double>(stats.lines));
    writer.Counter("nestrec_request_log_bytes_total", "Bytes of the request log's lines.",
                   static_cast<double>(stats.bytes));
    dropped("queue", stats.dropped_queue);
    dropped("disk", stats.dropped_disk);
  });
}

}  // namespace nestrec
