// Writes a sample of what is asked and what users do to a file of JSON lines, from which
// `nestrec export --events` makes what `nestrec prepare` reads. The sample is of users: of one that
// is in it every event and every request is there, on every server and after every restart.
// Requests without a user are sampled one by one.
//
//   {"type":"request","time":"2025-01-31T12:00:00.123Z","request_id":"...","user_id":"u",
//    "history":["a"],"k":10,"dim":64,"tier":"gold","why":"default","exact":true,
//    "model_version":"...","queue_ms":0.01,"encode_ms":0.2,"search_ms":0.1,
//    "items":[{"id":"b","score":1.5}]}
//   {"type":"encode",...}             as a request, without k, exact, search_ms and items
//   {"type":"events","time":"...","user_id":"u","events":[{"item_id":"a","time_ms":1738324800000}]}
//   {"type":"forget","time":"...","user_id":"u"}
//
// Only what was answered or recorded is written. Of a history the last kMaxHistory items are, of an
// answer the first kMaxItems.
//
// Thread safety: all methods may be called from any thread; none waits for the disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/line_file.h"
#include "server/metrics.h"
#include "server/recommend_engine.h"
#include "server/session_requests.h"

namespace nestrec {

class RequestRecorder final : public EngineObserver {
 public:
  static constexpr size_t kMaxHistory = 100;
  static constexpr size_t kMaxItems = 100;

  struct Options {
    LineFile::Options file;
    double share = 0.01;  // REQUIRES: 0 to 1
  };

  // Errors of LineFile::Open. `log` outlives this object.
  static absl::StatusOr<std::unique_ptr<RequestRecorder>> Open(const Options& options,
                                                               const Log& log);

  bool SamplesUser(absl::string_view user_id) const;

  void Served(const RecommendCall& call, const RecommendCall::Answered& answered) override;
  // After they were recorded.
  void Recorded(const RecordQuery& query);
  void Forgotten(absl::string_view user_id);

  // Returns when all that was sampled before is written or dropped.
  void Flush() { file_->Flush(); }
  LineFile::Stats stats() const { return file_->stats(); }

 private:
  RequestRecorder(double share, std::unique_ptr<LineFile> file)
      : share_(share), file_(std::move(file)) {}

  const double share_;
  const std::unique_ptr<LineFile> file_;
  std::atomic<uint64_t> calls_{0};  // any order will do
};

// The recorder outlives the registration.
[[nodiscard]] std::unique_ptr<Metrics::Registration> CollectRecorder(
    Metrics& metrics, const RequestRecorder& recorder);

}  // namespace nestrec
