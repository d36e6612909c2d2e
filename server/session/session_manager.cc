#include "server/session/session_manager.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace nestrec {

absl::StatusOr<SessionHistory> SessionManager::Read(absl::string_view user_id, FindItem find) {
  NESTREC_ASSIGN_OR_RETURN(const SessionTail tail,
                           log_->Read(user_id, std::numeric_limits<int32_t>::max()));
  SessionHistory history{.user_id = std::string(user_id),
                         .session = tail.session,
                         .end = tail.end,
                         .items = {},
                         .unknown = 0};
  history.items.reserve(tail.events.size());
  for (const SessionEvent& event : tail.events) {
    history.items.push_back(find(event.item_id).value_or(0));
    history.unknown += history.items.back() == 0 ? 1 : 0;
  }
  return history;
}

absl::Status SessionManager::Encode(const SessionModel& model,
                                    std::span<const SessionQuery> queries,
                                    std::span<SessionAnswer> answers, GoOn go_on) {
  if (queries.size() != answers.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(queries.size(), " queries, but ", answers.size(), " answers"));
  }
  NESTREC_RETURN_IF_ERROR(model.stepper == nullptr ? EncodeAgain(model, queries, answers, go_on)
                                                   : Step(model, queries, answers, go_on));
  for (const SessionAnswer& answer : answers) {
    computed_ += answer.computed;
    switch (answer.way) {
      case StepWay::kRemembered:
        ++remembered_;
        break;
      case StepWay::kStepped:
        ++stepped_;
        break;
      case StepWay::kReplayed:
        ++replayed_;
        break;
    }
  }
  return absl::OkStatus();
}

absl::Status SessionManager::Step(const SessionModel& model, std::span<const SessionQuery> queries,
                                  std::span<SessionAnswer> answers, GoOn go_on) {
  const Stepper& stepper = *model.stepper;
  const auto key_of = [&](const SessionQuery& query) {
    return StateCache::Key{.user_id = query.history->user_id,
                           .session = query.history->session,
                           .model = model.version,
                           .items = query.items};
  };
  std::vector<StateCache::Found> found;
  std::vector<SessionInput> inputs;
  for (const SessionQuery& query : queries) {
    found.push_back(states_.Get(key_of(query)));
    const SessionState* state = found.back().state.get();
    // The same model may have been loaded with more levels before.
    const bool fits = state != nullptr && state->levels() <= stepper.sizes().levels() &&
                      found.back().items >= query.items_changed;
    const History items(query.history->items);
    inputs.push_back(
        {.state = fits ? state : nullptr,
         .items = items.last(std::min(items.size(), static_cast<size_t>(stepper.max_len()))),
         .end = query.history->end,
         .more = query.more,
         .levels = query.levels,
         .most_levels = query.most_levels,
         .item_rows = query.item_rows});
  }
  std::vector<SessionOutput> outputs(queries.size());
  NESTREC_RETURN_IF_ERROR(stepper.Run(inputs, outputs, go_on));
  for (size_t i = 0; i < queries.size(); ++i) {
    answers[i] = {.z = std::move(outputs[i].z),
                  .finished = outputs[i].finished,
                  .way = outputs[i].way,
                  .computed = outputs[i].computed};
    if (queries[i].history->session == 0 || outputs[i].way == StepWay::kRemembered) continue;
    states_.Put(key_of(queries[i]), std::move(outputs[i].state), found[i].erasures, stepper.sizes(),
                stepper.planes());
  }
  return absl::OkStatus();
}

absl::Status SessionManager::EncodeAgain(const SessionModel& model,
                                         std::span<const SessionQuery> queries,
                                         std::span<SessionAnswer> answers, GoOn go_on) {
  const NestedSizes& sizes = model.encoder->sizes();
  std::vector<std::vector<int32_t>> items;
  for (const SessionQuery& query : queries) {
    items.push_back(ItemsOf(query, model.encoder->max_len()));
  }
  std::vector<EncodeRow> rows;
  for (size_t i = 0; i < queries.size(); ++i) {
    EncodeRow row{.history = items[i],
                  .levels = queries[i].levels,
                  .most_levels = queries[i].most_levels,
                  .item_rows = queries[i].item_rows};
    answers[i].z.resize(static_cast<size_t>(sizes.end(row.most() - 1)));
    row.z = answers[i].z;
    rows.push_back(row);
  }
  NESTREC_RETURN_IF_ERROR(model.encoder->Encode(rows, go_on));
  for (size_t i = 0; i < queries.size(); ++i) {
    answers[i].finished = rows[i].finished;
    answers[i].z.resize(static_cast<size_t>(sizes.end(rows[i].finished - 1)));
    answers[i].way = StepWay::kReplayed;
    answers[i].computed = static_cast<int64_t>(items[i].size());
  }
  return absl::OkStatus();
}

std::vector<int32_t> SessionManager::ItemsOf(const SessionQuery& query, int max_len) {
  const auto window = static_cast<size_t>(max_len);
  // It counts events that the catalogue does not have, as a state's does.
  const size_t more = std::min(query.more.size(), window);
  const History session =
      History(query.history->items).last(std::min(query.history->items.size(), window - more));
  std::vector<int32_t> items;
  std::copy_if(session.begin(), session.end(), std::back_inserter(items),
               [](int32_t item) { return item != 0; });
  const History followed = query.more.last(more);
  items.insert(items.end(), followed.begin(), followed.end());
  return items;
}

absl::StatusOr<bool> SessionManager::Forget(absl::string_view user_id) {
  const absl::StatusOr<bool> forgotten = log_->Forget(user_id);
  states_.Erase(user_id);
  return forgotten;
}

SessionStats SessionManager::stats() const {
  return {.log = log_->stats(),
          .states = states_.stats(),
          .remembered = remembered_,
          .stepped = stepped_,
          .replayed = replayed_,
          .computed = computed_};
}

}  // namespace nestrec
