#include "model/scorer.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/item_ranks.h"
#include "model/packed_rows.h"
#include "model/split.h"

namespace nestrec {
namespace {

// How many of `seen` rank before `target`; scores [seen.size()] are theirs.
template <typename ScoreOf>
int64_t SeenBefore(std::span<const int32_t> seen, int32_t target, float target_score,
                   ScoreOf score_of) {
  int64_t count = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    const float score = score_of(i);
    count += score > target_score || (score == target_score && seen[i] < target) ? 1 : 0;
  }
  return count;
}

}  // namespace

absl::Status Scorer::CheckItems(int64_t known, int64_t items) const {
  if (known == items) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the ", name(), " scores ", known, " items, but the data has ", items,
                   "; evaluate a model on the data that it was trained on"));
}

absl::Status Scorer::Rank(std::span<const RankQuery> queries, int64_t items,
                          RankVisitor visit) const {
  std::vector<History> histories;
  for (const RankQuery& query : queries) histories.push_back(query.history);
  const size_t rows = static_cast<size_t>(items) + 1;
  std::vector<TargetRank> ranks(queries.size());
  return Score(histories, [&](int size, std::span<const float> scores) -> absl::Status {
    if (scores.size() != queries.size() * rows) {
      return CheckItems(static_cast<int64_t>(scores.size() / queries.size()) - 1, items);
    }
    for (size_t q = 0; q < queries.size(); ++q) {
      const RankQuery& query = queries[q];
      const std::span<const float> row = scores.subspan(q * rows, rows);
      const float score = row[static_cast<size_t>(query.target)];
      ranks[q] = {.score = score,
                  .before = RankOf(row, query.target) - 1,
                  .seen_before = SeenBefore(query.seen, query.target, score, [&](size_t i) {
                    return row[static_cast<size_t>(query.seen[i])];
                  })};
    }
    return visit(size, ranks);
  });
}

ModelScorer::ModelScorer(const Encoder* encoder, int levels)
    : encoder_(encoder), levels_(levels == 0 ? encoder->sizes().levels() : levels) {}

std::vector<int> ModelScorer::dims() const { return encoder_->sizes().Prefix(levels_).values(); }

std::unique_ptr<const Scorer> ModelScorer::PreparedFor(int64_t positions) const {
  constexpr int64_t kMostBytes = int64_t{256} << 20;
  if (positions < 2 * encoder_->view().item_rows) return nullptr;
  auto prepared = std::make_unique<ModelScorer>(encoder_, levels_);
  prepared->inputs_ = InputTable::Make(encoder_->view(), levels_, kMostBytes);
  return prepared;
}

absl::Status ModelScorer::Score(std::span<const History> histories, Visitor visit) const {
  const ModelView& view = encoder_->view();
  const int dim = view.sizes.end(levels_ - 1);
  std::vector<float> z(histories.size() * static_cast<size_t>(dim));
  NESTREC_RETURN_IF_ERROR(encoder_->Encode(histories, levels_, z, nullptr, inputs_.get()));
  std::vector<float> scores(histories.size() * static_cast<size_t>(view.item_rows));
  for (int level = 0; level < levels_; ++level) {
    const int width = view.sizes.width(level);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(histories.size()),
                static_cast<int>(view.item_rows), width, 1.0f, z.data() + view.sizes.begin(level),
                dim, view.items[static_cast<size_t>(level)].data(), width, level == 0 ? 0.0f : 1.0f,
                scores.data(), static_cast<int>(view.item_rows));
    NESTREC_RETURN_IF_ERROR(visit(level, scores));
  }
  return absl::OkStatus();
}

absl::Status ModelScorer::Rank(std::span<const RankQuery> queries, int64_t items,
                               RankVisitor visit) const {
  const ModelView& view = encoder_->view();
  NESTREC_RETURN_IF_ERROR(CheckItems(view.item_rows - 1, items));
  const size_t users = queries.size();
  const size_t levels = static_cast<size_t>(levels_);
  const size_t dim = static_cast<size_t>(view.sizes.end(levels_ - 1));
  std::vector<History> histories;
  std::vector<int32_t> targets;
  for (const RankQuery& query : queries) {
    histories.push_back(query.history);
    targets.push_back(query.target);
  }
  std::vector<float> z(users * dim);
  NESTREC_RETURN_IF_ERROR(encoder_->Encode(histories, levels_, z, nullptr, inputs_.get()));

  const LevelItems table = {
      .sizes = &view.sizes, .levels = levels_, .items = view.items, .item_rows = view.item_rows};
  std::vector<float> target_scores(levels * users);  // [levels, users]
  std::vector<int64_t> seen_before(levels * users);  // [levels, users]
  std::vector<int32_t> which;
  std::vector<float> scores;
  for (size_t q = 0; q < users; ++q) {
    const RankQuery& query = queries[q];
    which.assign(1, query.target);
    which.insert(which.end(), query.seen.begin(), query.seen.end());
    scores.resize(levels * which.size());
    ScoreItems(table, z.data() + q * dim, which, scores.data());
    for (size_t level = 0; level < levels; ++level) {
      const float* of_level = scores.data() + level * which.size();
      target_scores[level * users + q] = of_level[0];
      seen_before[level * users + q] = SeenBefore(query.seen, query.target, of_level[0],
                                                  [&](size_t i) { return of_level[i + 1]; });
    }
  }
  std::vector<float> memory(static_cast<size_t>(
      PackedRows::Floats(static_cast<int64_t>(users), static_cast<int64_t>(dim))));
  PackedRows packed(static_cast<int64_t>(users), static_cast<int64_t>(dim), memory.data());
  packed.Extend(z.data(), static_cast<int64_t>(dim), static_cast<int64_t>(users),
                static_cast<int64_t>(dim));
  std::vector<int64_t> before(levels * users);  // [levels, users]
  CountBefore(table, packed, targets, target_scores.data(), before.data());

  std::vector<TargetRank> ranks(users);
  for (size_t level = 0; level < levels; ++level) {
    for (size_t q = 0; q < users; ++q) {
      const size_t at = level * users + q;
      ranks[q] = {target_scores[at], before[at], seen_before[at]};
    }
    NESTREC_RETURN_IF_ERROR(visit(static_cast<int>(level), ranks));
  }
  return absl::OkStatus();
}

PopularityScorer::PopularityScorer(const Dataset& dataset)
    : counts_(static_cast<size_t>(dataset.items()) + 1) {
  for (int64_t user = 0; user < dataset.users(); ++user) {
    for (const int32_t item : TrainingItems(dataset.sequence(user)))
      counts_[static_cast<size_t>(item)] += 1.0f;
  }
}

absl::Status PopularityScorer::Score(std::span<const History> histories, Visitor visit) const {
  std::vector<float> scores;
  scores.reserve(histories.size() * counts_.size());
  for (size_t h = 0; h < histories.size(); ++h)
    scores.insert(scores.end(), counts_.begin(), counts_.end());
  return visit(0, scores);
}

absl::StatusOr<std::unique_ptr<ContentNeighbourScorer>> ContentNeighbourScorer::Create(
    const Dataset& dataset) {
  Matrix unit{.rows = dataset.items() + 1, .columns = 0, .values = {}};
  for (const Modality& modality : dataset.modalities) unit.columns += modality.features.columns;
  if (unit.columns == 0) {
    return absl::FailedPreconditionError(
        "the content baseline needs features, but none are loaded");
  }
  unit.values.resize(static_cast<size_t>(unit.rows * unit.columns));
  for (int64_t item = 1; item < unit.rows; ++item) {
    float* out = unit.row(item).data();
    for (const Modality& modality : dataset.modalities) {
      // Each modality counts alike, whatever the scale of its encoder.
      const std::span<const float> row = modality.features.row(item - 1);
      const float norm = cblas_snrm2(static_cast<int>(row.size()), row.data(), 1);
      for (const float value : row) *out++ = norm > 0 ? value / norm : 0.0f;
    }
    const std::span<float> row = unit.row(item);
    const float norm = cblas_snrm2(static_cast<int>(row.size()), row.data(), 1);
    if (norm > 0) cblas_sscal(static_cast<int>(row.size()), 1.0f / norm, row.data(), 1);
  }
  return std::unique_ptr<ContentNeighbourScorer>(new ContentNeighbourScorer(std::move(unit)));
}

absl::Status ContentNeighbourScorer::Score(std::span<const History> histories,
                                           Visitor visit) const {
  std::vector<float> queries(histories.size() * static_cast<size_t>(unit_.columns));
  for (size_t h = 0; h < histories.size(); ++h) {
    if (histories[h].empty()) continue;
    const std::span<const float> row = unit_.row(histories[h].back());
    std::copy(row.begin(), row.end(), queries.begin() + static_cast<int64_t>(h) * unit_.columns);
  }
  std::vector<float> scores(histories.size() * static_cast<size_t>(unit_.rows));
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(histories.size()),
              static_cast<int>(unit_.rows), static_cast<int>(unit_.columns), 1.0f, queries.data(),
              static_cast<int>(unit_.columns), unit_.values.data(), static_cast<int>(unit_.columns),
              0.0f, scores.data(), static_cast<int>(unit_.rows));
  for (size_t h = 0; h < histories.size(); ++h) {
    if (histories[h].empty()) continue;
    scores[h * static_cast<size_t>(unit_.rows) + static_cast<size_t>(histories[h].back())] =
        -2.0f;  // below any cosine
  }
  return visit(0, scores);
}

CoVisitScorer::CoVisitScorer(const Dataset& dataset)
    : rows_(dataset.items() + 1), neighbours_(static_cast<size_t>(rows_)) {
  std::vector<std::vector<int32_t>> users_items;
  std::vector<int64_t> holders(static_cast<size_t>(rows_));
  std::vector<std::vector<int32_t>> users_of(static_cast<size_t>(rows_));
  for (int64_t user = 0; user < dataset.users(); ++user) {
    const std::span<const int32_t> trained = TrainingItems(dataset.sequence(user));
    std::vector<int32_t> items(trained.begin(), trained.end());
    std::sort(items.begin(), items.end());
    items.erase(std::unique(items.begin(), items.end()), items.end());
    for (const int32_t item : items) {
      users_of[static_cast<size_t>(item)].push_back(static_cast<int32_t>(user));
      ++holders[static_cast<size_t>(item)];
    }
    users_items.push_back(std::move(items));
  }
  absl::flat_hash_map<int32_t, int64_t> shared;
  for (int64_t item = 1; item < rows_; ++item) {
    shared.clear();
    for (const int32_t user : users_of[static_cast<size_t>(item)]) {
      for (const int32_t other : users_items[static_cast<size_t>(user)]) {
        if (other != item) ++shared[other];
      }
    }
    std::vector<Neighbour>& list = neighbours_[static_cast<size_t>(item)];
    for (const auto& [other, count] : shared) {
      const double product = static_cast<double>(holders[static_cast<size_t>(item)]) *
                             static_cast<double>(holders[static_cast<size_t>(other)]);
      list.push_back({other, static_cast<float>(static_cast<double>(count) / std::sqrt(product))});
    }
  }
}

absl::Status CoVisitScorer::Score(std::span<const History> histories, Visitor visit) const {
  std::vector<float> scores(histories.size() * static_cast<size_t>(rows_));
  for (size_t h = 0; h < histories.size(); ++h) {
    if (histories[h].empty()) continue;
    for (const Neighbour& neighbour : neighbours_[static_cast<size_t>(histories[h].back())]) {
      scores[h * static_cast<size_t>(rows_) + static_cast<size_t>(neighbour.item)] =
          neighbour.score;
    }
  }
  return visit(0, scores);
}

}  // namespace nestrec
