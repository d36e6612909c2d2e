#include "server/recommend_engine.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/recommend_place.h"
#include "server/session_requests.h"
#include "server/status_details.h"
#include "server/warm_up.h"

namespace nestrec {
namespace {

size_t LaneOf(const TierTable& tiers, const Tier& tier) {
  return static_cast<size_t>(&tier - tiers.tiers().data());
}

int WidestRange(const Snapshot& snapshot) {
  int widest = 0;
  for (const Tier& tier : snapshot.tiers().tiers()) {
    int levels = 0;
    for (const int dim : snapshot.sizes().values()) {
      levels += dim >= tier.narrowest() && dim <= tier.dim ? 1 : 0;
    }
    widest = std::max(widest, levels);
  }
  return widest;
}

// A lane for each tier; together they have the queue's places, and each has at least one.
std::vector<BatchQueue::Lane> LanesOf(const TierTable& tiers, int queue_capacity) {
  double shares = 0;
  for (const Tier& tier : tiers.tiers()) shares += tier.queue_share;
  std::vector<BatchQueue::Lane> lanes;
  for (const Tier& tier : tiers.tiers()) {
    const double places = std::round(queue_capacity * tier.queue_share / shares);
    lanes.push_back({.name = tier.name,
                     .capacity = static_cast<size_t>(std::max(1.0, places)),
                     .share = tier.queue_share,
                     .priority = tier.priority});
  }
  return lanes;
}

}  // namespace

RecommendEngine::RecommendEngine(const Snapshot& snapshot, const Options& options)
    : options_(options),
      lanes_(LanesOf(snapshot.tiers(), options.queue_capacity)),
      overload_({.max_steps = WidestRange(snapshot) - 1,
                 .workers = options.workers,
                 .target = options.overload_target,
                 .clock = options.clock}),
      batcher_({.queue = {.lanes = lanes_,
                          .max_batch = static_cast<size_t>(options.max_batch),
                          .max_delay = options.batch_delay,
                          .workers = options.workers},
                .run = [this](Batcher::Batch batch) { Run(std::move(batch)); },
                .clock = options.clock}) {}

absl::Status RecommendEngine::CheckTiers(const Snapshot& snapshot) const {
  const std::vector<BatchQueue::Lane> lanes = LanesOf(snapshot.tiers(), options_.queue_capacity);
  if (lanes != lanes_) {
    const auto names = [](const std::vector<BatchQueue::Lane>& of) {
      return absl::StrJoin(of, ", ", [](std::string* out, const BatchQueue::Lane& lane) {
        absl::StrAppend(out, lane.name);
      });
    };
    return absl::FailedPreconditionError(absl::StrCat(
        "the model gives the tiers ", names(lanes), ", the server has ", names(lanes_),
        "; name the tiers in the config file (--config), or start a server of its own for it"));
  }
  return absl::OkStatus();
}

absl::Status RecommendEngine::Submit(std::unique_ptr<RecommendCall> call) {
  const Snapshot& snapshot = *call->snapshot;
  if (call->items == nullptr) call->items = snapshot.items();
  RecommendQuery& query = call->query;
  // The width itself is chosen when the time that is left is known.
  NESTREC_ASSIGN_OR_RETURN(
      const WidthDecision width,
      ChooseWidth(query.width, snapshot.tiers(),
                  {.sizes = &snapshot.sizes(), .quality = snapshot.quality()}, {}));
  const Tier* tier = snapshot.tiers().Find(width.tier);
  if (tier != nullptr) {
    if (tier->max_k > 0 && query.k > tier->max_k) {
      return BadRequest({{"k", absl::StrCat(query.k, " is more than tier ", tier->name, " gives, ",
                                            tier->max_k)}});
    }
    if (!query.width.latency_budget.has_value() && tier->latency_budget <= kLongestBudget) {
      query.width.latency_budget = tier->latency_budget;
    }
  }
  const size_t lane =
      LaneOf(snapshot.tiers(), tier != nullptr ? *tier : snapshot.tiers().default_tier());
  const Instant arrived = call->arrived;
  const Instant budget_ends =
      After(arrived, query.width.latency_budget.value_or(absl::InfiniteDuration()));
  const Instant deadline = std::min(call->deadline, budget_ends);
  return batcher_.Submit(lane,
                         {.item = std::move(call), .accepted = arrived, .deadline = deadline});
}

bool RecommendEngine::overloaded() {
  if (overload_.steps() > 0) return true;
  size_t waiting = 0;
  for (const LaneStats& lane : batcher_.stats()) waiting += lane.waiting;
  return waiting > static_cast<size_t>(options_.workers) * static_cast<size_t>(options_.max_batch);
}

void RecommendEngine::Run(Batcher::Batch batch) {
  const int narrowing = overload_.steps();
  overload_.Began();
  std::vector<Place> places;
  for (QueuedItem& item : batch.items) places.push_back({.item = std::move(item.item)});
  // Requests from before and after a change of models do not mix.
  std::stable_sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.call().snapshot < b.call().snapshot;
  });
  double wider = 1;
  for (size_t begin = 0; begin < places.size();) {
    size_t end = begin;
    const std::shared_ptr<const Snapshot> snapshot = places[begin].call().snapshot;
    while (end < places.size() && places[end].call().snapshot == snapshot) ++end;
    wider = std::max(wider, RunOn(*snapshot, std::span(places).subspan(begin, end - begin),
                                  batch.started, narrowing));
    begin = end;
  }
  const absl::Duration busy = Between(batch.started, options_.clock());
  overload_.Ended({.waited = batch.waited, .busy = busy, .busy_if_wider = wider * busy});
}

double RecommendEngine::RunOn(const Snapshot& snapshot, std::span<Place> places, Instant started,
                              int narrowing) {
  int64_t rows = 0;
  size_t similar = 0;
  size_t vectors = 0;
  std::vector<int64_t> explained;
  for (Place& place : places) {
    RecommendQuery& query = place.call().query;
    if (place.is_similar()) {
      place.rows = 0;
      ++similar;
      continue;
    }
    vectors += place.wants_vector() ? 1 : 0;
    if (!query.user_id.empty()) {
      if (const absl::Status status =
              Guard("reading a session",
                    [&] { return ReadSession(*options_.sessions, *place.call().items, query); });
          !status.ok()) {
        place.Fail(status);
        continue;
      }
    }
    // A session is mostly one step onward.
    const int64_t items = place.has_session() ? 1 : static_cast<int64_t>(query.history.size());
    place.rows = std::clamp<int64_t>(items, 1, snapshot.encoder().max_len());
    rows += place.rows;
    if (query.explain) {
      const auto window = WindowOf(query, snapshot.encoder().max_len()).size();
      place.explain_rows = std::max<int64_t>(1, ExplainRows(static_cast<int64_t>(window)));
      explained.push_back(place.explain_rows);
    }
  }
  CostModel& costs = snapshot.costs();
  const BatchEstimate estimate =
      EstimateBatch(costs, {.rows = rows,
                            .searches = places.size() - similar - vectors,
                            .similar = similar,
                            .explained = explained});
  double cost = 0;
  double cost_if_wider = 0;
  for (Place& place : places) {
    place.width = Decide(place, estimate, narrowing);
    if (const auto key = HoldKeyOf(place)) {
      place.held_levels = snapshot.holds().Allow(*key, place.width.fit, started);
      if (place.held_levels < place.width.most_levels) {
        place.width = Decide(place, estimate, narrowing);
      }
    }
    // There is nothing to go on with level by level.
    if (place.is_similar()) place.width.most_levels = place.width.levels;
    place.z.resize(static_cast<size_t>(snapshot.sizes().end(place.width.most_levels - 1)));
    if (narrowing == 0 || estimate.total.empty()) continue;
    const int wider = Decide(place, estimate, narrowing - 1).levels;
    cost += absl::ToDoubleSeconds(estimate.total[static_cast<size_t>(place.width.levels) - 1]);
    cost_if_wider += absl::ToDoubleSeconds(estimate.total[static_cast<size_t>(wider) - 1]);
  }

  const absl::Status sessions =
      Guard("encoding", [&] { return EncodeSessions(snapshot, places, estimate); });
  const absl::Status histories =
      Guard("encoding", [&] { return EncodeHistories(snapshot, places, estimate); });
  const absl::Duration encode = Between(started, options_.clock());
  for (const Place& place : places) {
    if (!place.ran_out) continue;
    snapshot.holds().RanOut(*HoldKeyOf(place), place.width.levels, started);
  }
  // The same work as this many rows of the widest of the batch.
  int widest = 1;
  for (const Place& place : places) {
    if (!place.failed && !place.is_similar()) widest = std::max(widest, place.width.levels);
  }
  double equivalent = 0;
  for (Place& place : places) {
    if (place.failed) continue;
    if (place.is_similar()) {
      CopyItemVector(snapshot, *place.call().items, *place.call().query.similar_to,
                     place.width.levels, place.z);
      continue;
    }
    if (const absl::Status& encoded = place.has_session() ? sessions : histories; !encoded.ok()) {
      place.Fail(encoded);
      continue;
    }
    equivalent += static_cast<double>(place.rows) * costs.EncodeWork(place.width.levels) /
                  costs.EncodeWork(widest);
  }
  if (equivalent > 0) {
    costs.Record(Stage::kEncode, widest, std::max<int64_t>(1, std::llround(equivalent)), encode);
  }
  for (const Place& place : places) {
    if (place.failed || place.is_similar()) continue;
    const RecommendQuery& query = place.call().query;
    recent_.Add(place.has_session() ? query.session->items : query.history,
                snapshot.encoder().max_len(), place.width.dim, *place.call().items, started);
  }
  AnswerVectors(places, started, encode);
  Find(snapshot, places, started, encode);
  if (!options_.observers.empty()) {
    const EngineObserver::Batch batch{
        .requests = places.size(),
        .rows = rows,
        .encode = encode,
        .took = Between(started, options_.clock()),
        .expected = estimate.total.empty() ? absl::ZeroDuration()
                                           : estimate.total[static_cast<size_t>(widest) - 1]};
    for (EngineObserver* observer : options_.observers) observer->Ran(batch);
  }
  return cost > 0 ? cost_if_wider / cost : 1;
}

std::optional<WidthHold::Key> RecommendEngine::HoldKeyOf(const Place& place) {
  const Instant ends = place.ends();
  if (place.width.fit.widest == 0 || ends == Instant::max()) return std::nullopt;
  const RecommendCall& call = place.call();
  const TierTable& tiers = call.snapshot->tiers();
  return WidthHold::Key{.tier = LaneOf(tiers, *tiers.Find(place.width.tier)),
                        .time = Between(call.arrived, ends)};
}

WidthDecision RecommendEngine::Decide(const Place& place, const BatchEstimate& estimate,
                                      int narrowing) const {
  const RecommendCall& call = place.call();
  const Instant now = options_.clock();
  // Submit has seen that the request can be served.
  return ChooseWidth(
             call.query.width, call.snapshot->tiers(),
             {.sizes = &call.snapshot->sizes(), .quality = call.snapshot->quality()},
             {.spent = Between(call.arrived, now),
              .deadline_left = call.deadline == Instant::max() ? absl::InfiniteDuration()
                                                               : Between(now, call.deadline),
              .narrowing = narrowing,
              .costs = estimate.total,
              // There is nothing to try level by level where nothing is encoded.
              .usual_costs = place.is_similar() ? estimate.total : estimate.usual_total,
              .held_levels = place.held_levels})
      .value();
}

absl::Status RecommendEngine::WarmUp(const Snapshot& snapshot) {
  return nestrec::WarmUp(snapshot, recent_.Get(), options_.warm_up_clock);
}

}  // namespace nestrec
