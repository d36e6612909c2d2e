// What a batch goes through once its widths are known: encoding, search, answers.
#include <algorithm>
#include <functional>
#include <span>
#include <utility>

#include "base/guard.h"
#include "base/status_macros.h"
#include "server/explain.h"
#include "server/recommend_place.h"
#include "server/session_requests.h"

namespace nestrec {
namespace {

// One level more than `finished` for a batch, and what follows it.
absl::Duration NextLevel(const BatchEstimate& estimate, int finished) {
  const auto next = static_cast<size_t>(finished);
  return estimate.encode[next] - estimate.encode[next - 1] + estimate.after[next];
}

}  // namespace

absl::Status RecommendEngine::EncodeSessions(const Snapshot& snapshot, std::span<Place> places,
                                             const BatchEstimate& estimate) {
  std::vector<SessionQuery> queries;
  std::vector<Place*> of_query;
  // Histories are encoded afterwards: what is sure for them stays so.
  absl::Duration histories = absl::ZeroDuration();
  Instant histories_end = Instant::max();
  int64_t rows = 0;
  int64_t history_rows = 0;
  int history_levels = 0;
  for (Place& place : places) {
    if (place.failed) continue;
    rows += place.rows;
    if (place.has_history()) {
      history_rows += place.rows;
      history_levels = std::max(history_levels, place.width.levels);
      histories_end = std::min(histories_end, place.ends());
    }
    if (!place.has_session()) continue;
    const SessionHistory& history = *place.call().query.session;
    const ItemView& items = *place.call().items;
    const auto window =
        std::min(history.items.size(), static_cast<size_t>(snapshot.encoder().max_len()));
    queries.push_back({.history = &history,
                       .more = place.call().query.history,
                       .levels = place.width.levels,
                       .most_levels = place.width.most_levels,
                       .item_rows = &items,
                       .items = items.generation(),
                       .items_changed = items.NewestChange(History(history.items).last(window))});
    of_query.push_back(&place);
  }
  if (queries.empty()) return absl::OkStatus();
  if (history_levels > 0 && !estimate.encode.empty()) {
    histories = estimate.encode[static_cast<size_t>(history_levels) - 1] *
                (static_cast<double>(history_rows) / static_cast<double>(rows));
  }
  const auto fits = [&](size_t query, int finished) {
    const absl::Duration needed = NextLevel(estimate, finished) + histories;
    const Instant ready = options_.clock() + absl::ToChronoNanoseconds(needed);
    of_query[query]->ran_out = ready > of_query[query]->ends();
    return ready <= std::min(of_query[query]->ends(), histories_end);
  };
  std::vector<SessionAnswer> answers(queries.size());
  NESTREC_RETURN_IF_ERROR(
      options_.sessions->Encode(snapshot.session_model(), queries, answers, fits));
  for (size_t i = 0; i < answers.size(); ++i) {
    of_query[i]->z = std::move(answers[i].z);
    of_query[i]->Finished(snapshot.sizes(), answers[i].finished);
  }
  return absl::OkStatus();
}

absl::Status RecommendEngine::EncodeHistories(const Snapshot& snapshot, std::span<Place> places,
                                              const BatchEstimate& estimate) {
  std::vector<EncodeRow> rows;
  std::vector<Place*> of_row;
  for (Place& place : places) {
    if (place.failed || !place.has_history()) continue;
    rows.push_back({.history = place.call().query.history,
                    .levels = place.width.levels,
                    .most_levels = place.width.most_levels,
                    .z = place.z,
                    .item_rows = place.call().items.get()});
    of_row.push_back(&place);
  }
  const auto fits = [&](size_t row, int finished) {
    const Instant ready =
        options_.clock() + absl::ToChronoNanoseconds(NextLevel(estimate, finished));
    of_row[row]->ran_out = ready > of_row[row]->ends();
    return !of_row[row]->ran_out;
  };
  NESTREC_RETURN_IF_ERROR(snapshot.encoder().Encode(rows, fits));
  for (size_t i = 0; i < rows.size(); ++i) {
    of_row[i]->Finished(snapshot.sizes(), rows[i].finished);
  }
  return absl::OkStatus();
}

void RecommendEngine::AnswerVectors(std::span<Place> places, Instant started,
                                    absl::Duration encode) {
  for (Place& place : places) {
    if (place.failed || !place.wants_vector()) continue;
    RecommendCall& call = place.call();
    place.z.resize(static_cast<size_t>(place.width.dim));
    const RecommendCall::Answered answered{.width = place.width,
                                           .recommendation = {.result = {},
                                                              .items = call.items,
                                                              .encode = encode,
                                                              .search = absl::ZeroDuration(),
                                                              .vector = std::move(place.z)},
                                           .queued = Between(call.arrived, started)};
    for (EngineObserver* observer : options_.observers) observer->Served(call, answered);
    call.Answer(answered);
  }
}

void RecommendEngine::Find(const Snapshot& snapshot, std::span<Place> places, Instant started,
                           absl::Duration encode) {
  struct Asked {
    bool explains;
    const ItemIndex* index;
    Place* place;
  };
  std::vector<Asked> asked;
  for (Place& place : places) {
    if (place.failed || place.wants_vector()) continue;
    asked.push_back(
        {place.explain_rows > 0, &IndexOf(snapshot, place.call().query, place.width), &place});
  }
  // Those that take long, last.
  std::stable_sort(asked.begin(), asked.end(), [](const Asked& a, const Asked& b) {
    return a.explains != b.explains ? b.explains : std::less<>()(a.index, b.index);
  });
  for (size_t begin = 0; begin < asked.size();) {
    size_t end = begin + 1;
    while (!asked[begin].explains && end < asked.size() && !asked[end].explains &&
           asked[end].index == asked[begin].index) {
      ++end;
    }
    std::vector<FindRequest> requests;
    for (size_t i = begin; i < end; ++i) {
      const Place& place = *asked[i].place;
      requests.push_back({&place.call().query, &place.width,
                          std::span(place.z).first(static_cast<size_t>(place.width.dim))});
    }
    const Instant begun = options_.clock();
    // As they are now: what was removed since the requests came does not come back.
    const std::shared_ptr<const ItemView> items = snapshot.items();
    std::vector<absl::StatusOr<SearchResult>> results;
    const absl::Status status = Guard("searching", [&] {
      results = FindItems(snapshot, *items, requests);
      return absl::OkStatus();
    });
    const absl::Duration search = Between(begun, options_.clock());
    const Place& first = *asked[begin].place;
    bool found = status.ok();
    for (size_t i = begin; i < end; ++i) {
      Place& place = *asked[i].place;
      if (!status.ok() || !results[i - begin].ok()) {
        place.Fail(status.ok() ? results[i - begin].status() : status);
        found = false;
      }
    }
    if (found) {
      snapshot.costs().Record(first.is_similar() ? Stage::kSimilar : Stage::kSearch,
                              first.width.levels, static_cast<int64_t>(end - begin), search);
    }
    for (size_t i = begin; i < end; ++i) {
      if (asked[i].place->failed) continue;
      Complete(snapshot, *asked[i].place,
               {.result = *std::move(results[i - begin]),
                .items = items,
                .encode = encode,
                .search = search},
               started);
    }
    begin = end;
  }
}

void RecommendEngine::Complete(const Snapshot& snapshot, Place& place,
                               Recommendation recommendation, Instant started) {
  RecommendCall& call = place.call();
  const Instant begun = options_.clock();
  if (place.explain_rows > 0) {
    const absl::Status status = ExplainPlace(snapshot, place, recommendation);
    if (!status.ok()) return place.Fail(status);
  }
  const absl::Duration explain = recommendation.explain;
  const RecommendCall::Answered answered{.width = place.width,
                                         .recommendation = std::move(recommendation),
                                         .queued = Between(call.arrived, started)};
  for (EngineObserver* observer : options_.observers) observer->Served(call, answered);
  call.Answer(answered);
  snapshot.costs().Record(Stage::kOther, place.width.levels, 1,
                          Between(begun, options_.clock()) - explain);
}

absl::Status RecommendEngine::ExplainPlace(const Snapshot& snapshot, const Place& place,
                                           Recommendation& recommendation) const {
  const RecommendCall& call = place.call();
  const int levels = place.width.levels;
  const Instant begun = options_.clock();
  absl::StatusOr<Explanation> explanation = Guard("explaining", [&] {
    return Explain(snapshot, WindowOf(call.query, snapshot.encoder().max_len()), levels,
                   {.known = call.items.get(),
                    .searched = recommendation.items.get(),
                    .found = recommendation.result.items},
                   [&]() -> absl::Status {
                     if (call.Cancelled()) {
                       return absl::CancelledError("the client cancelled the call");
                     }
                     if (options_.clock() >= call.deadline) {
                       return absl::DeadlineExceededError(
                           "the deadline passed while the items were explained");
                     }
                     return absl::OkStatus();
                   });
  });
  if (!explanation.ok()) return explanation.status();
  recommendation.explanation = *std::move(explanation);
  recommendation.explain = Between(begun, options_.clock());
  snapshot.costs().Record(Stage::kEncode, levels, place.explain_rows, recommendation.explain);
  return absl::OkStatus();
}

}  // namespace nestrec
