#include "server/lifecycle/self_check.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "index/item_filter.h"
#include "index/score.h"

namespace nestrec {
namespace {

constexpr int64_t kRecallAt = 10;
// Of |z| |e|: sums of products in another order and with other kernels differ by some 1e-6 of it.
constexpr double kTolerance = 1e-4;
// Where items were rounded to float16, every product differs by up to a part in 2048.
constexpr double kRoundedTolerance = kTolerance + 0x1p-11;
// Users whose next item may be found on one side and not on the other: one may stand on the edge,
// and some more where all scores moved.
constexpr int64_t kOnTheEdge = 1;
constexpr int64_t kOnTheEdgeRounded = 3;

double NormOf(std::span<const float> z) {
  double squares = 0;
  for (const float value : z) squares += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(squares);
}

double NormOf(const Snapshot& snapshot, int32_t item, int levels) {
  std::vector<float> vector(static_cast<size_t>(snapshot.sizes().end(levels - 1)));
  snapshot.item_vectors().CopyRows(levels, item, vector);
  return NormOf(vector);
}

// By the index, where there is one; NaN where it does not know the item.
absl::StatusOr<double> ScoreOf(const Snapshot& snapshot, int32_t item, std::span<const float> query,
                               int levels) {
  if (!snapshot.searches()) {
    return double{CanonicalScore(query, snapshot.item_vectors(), levels, item)};
  }
  const ItemIndex& index = snapshot.index(static_cast<int>(query.size()), IndexSpec{});
  const ItemFilter only = ItemFilter::Allowing(snapshot.catalogue().size(), std::span(&item, 1));
  NESTREC_ASSIGN_OR_RETURN(const SearchResult target,
                           index.Search(query, {.k = 1, .filter = &only}));
  return target.items.empty() ? std::nan("") : double{target.items[0].score};
}

}  // namespace

absl::Status SelfCheck(const Snapshot& snapshot, const Log& log) {
  const std::vector<SelfCheckUser>& users = snapshot.checkpoint().info().self_check;
  if (users.empty()) {
    log.Warning("self_check_skipped",
                {{"name", snapshot.checkpoint().info().name},
                 {"version", snapshot.version()},
                 {"why",
                  "the checkpoint keeps no users to check the model with: its training did not end "
                  "with an evaluation, or an older release wrote it; it serves unchecked"}});
    return absl::OkStatus();
  }
  const int levels = snapshot.sizes().levels();
  const bool rounded = snapshot.item_vectors().half();
  std::vector<int64_t> found(static_cast<size_t>(levels)), stored(static_cast<size_t>(levels));
  for (const SelfCheckUser& user : users) {
    std::vector<float> z(static_cast<size_t>(snapshot.sizes().max_dim()));
    const History history(user.history);
    NESTREC_RETURN_IF_ERROR(snapshot.encoder().Encode(std::span(&history, 1), levels, z));
    for (int level = 0; level < levels; ++level) {
      const auto at = static_cast<size_t>(level);
      const int dim = snapshot.sizes().end(level);
      const auto query = std::span<const float>(z).first(static_cast<size_t>(dim));
      NESTREC_ASSIGN_OR_RETURN(const double score,
                               ScoreOf(snapshot, user.target, query, level + 1));
      const double limit = (rounded ? kRoundedTolerance : kTolerance) *
                           (1e-3 + NormOf(query) * NormOf(snapshot, user.target, level + 1));
      if (!(std::abs(score - static_cast<double>(user.scores[at])) <= limit)) {
        return absl::DataLossError(absl::StrCat(
            "the model does not compute here what its checkpoint says: a score of size ", dim,
            " is ", score, ", stored is ", user.scores[at],
            "; the file or this program's build is broken"));
      }
      if (!snapshot.searches()) continue;
      NESTREC_ASSIGN_OR_RETURN(const SearchResult top,
                               snapshot.index(dim, IndexSpec{}).Search(query, {.k = kRecallAt}));
      found[at] += std::any_of(top.items.begin(), top.items.end(),
                               [&](const ScoredItem& item) { return item.item == user.target; });
      stored[at] += user.ranks[at] <= kRecallAt ? 1 : 0;
    }
  }
  for (size_t level = 0; snapshot.searches() && level < found.size(); ++level) {
    if (std::abs(found[level] - stored[level]) > (rounded ? kOnTheEdgeRounded : kOnTheEdge)) {
      return absl::DataLossError(absl::StrCat(
          "the model does not find here what its checkpoint says: at size ",
          snapshot.sizes().end(static_cast<int>(level)), " the next item of ", found[level], " of ",
          users.size(), " users is among the first ", kRecallAt, ", stored are ", stored[level],
          "; the file or this program's build is broken"));
    }
  }
  return absl::OkStatus();
}

}  // namespace nestrec
