#include "model/diagnosis.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "model/encoder.h"
#include "model/features.h"

namespace nestrec {
namespace {

// Lowest length of each bucket; it ends where the next begins.
constexpr int64_t kHistoryLengths[] = {1, 3, 5, 10, 20, 50, 100};
constexpr int64_t kPopularityBuckets = 5;
// Of a level's largest entry. Folded whitening and another order of summing stay far below, other
// features far above.
constexpr float kReproduced = 1e-3f;

// Both ends belong to it.
struct Bucket {
  int64_t low;
  int64_t high;
  std::string label;
};

std::vector<int64_t> EvaluatedUsers(const Dataset& dataset) {
  std::vector<int64_t> users;
  for (int64_t user = 0; user < dataset.users(); ++user) {
    if (IsEvaluated(dataset.sequence(user))) users.push_back(user);
  }
  return users;
}

// The users of each bucket by `values` [user]; buckets without users are left out.
std::vector<DiagnosisRow> Slice(const std::vector<Bucket>& buckets,
                                const std::vector<int64_t>& values,
                                const std::vector<std::vector<int64_t>>& ranks) {
  std::vector<DiagnosisRow> rows;
  for (const Bucket& bucket : buckets) {
    DiagnosisRow row{.label = bucket.label, .users = 0, .metrics = {}};
    for (const std::vector<int64_t>& of_size : ranks) {
      std::vector<int64_t> inside;
      for (size_t user = 0; user < values.size(); ++user) {
        if (values[user] >= bucket.low && values[user] <= bucket.high)
          inside.push_back(of_size[user]);
      }
      row.users = static_cast<int64_t>(inside.size());
      row.metrics.push_back(MetricsOfRanks(inside));
    }
    if (row.users > 0) rows.push_back(std::move(row));
  }
  return rows;
}

// "None at all", then buckets of about as many users each that keep equal counts together.
std::vector<Bucket> PopularityBuckets(std::vector<int64_t> counts) {
  std::vector<Bucket> buckets = {{.low = 0, .high = 0, .label = "0 (never seen)"}};
  std::erase(counts, 0);
  std::sort(counts.begin(), counts.end());
  const int64_t users = static_cast<int64_t>(counts.size());
  int64_t begin = 0;
  for (int64_t b = 1; b <= kPopularityBuckets && begin < users; ++b) {
    // Up to this bucket's share of the users, and on to the end of the count reached there.
    const int64_t share = std::max(begin, users * b / kPopularityBuckets - 1);
    const int64_t low = counts[static_cast<size_t>(begin)];
    const int64_t high = counts[static_cast<size_t>(share)];
    buckets.push_back({low, high, low == high ? absl::StrCat(low) : absl::StrCat(low, "-", high)});
    begin = std::upper_bound(counts.begin(), counts.end(), high) - counts.begin();
  }
  return buckets;
}

// `scorer` at some of its sizes.
class ChosenSizes : public Scorer {
 public:
  ChosenSizes(const Scorer* scorer, std::string name, std::vector<int> sizes)
      : scorer_(scorer), name_(std::move(name)), sizes_(std::move(sizes)) {}
  std::string name() const override { return name_; }
  std::vector<int> dims() const override {
    const std::vector<int> all = scorer_->dims();
    std::vector<int> dims;
    for (const int size : sizes_) dims.push_back(all[static_cast<size_t>(size)]);
    return dims;
  }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override {
    int chosen = 0;
    return scorer_->Score(histories, [&](int size, std::span<const float> scores) -> absl::Status {
      if (size != sizes_[static_cast<size_t>(chosen)]) return absl::OkStatus();
      return visit(chosen++, scores);
    });
  }
  absl::Status Rank(std::span<const RankQuery> queries, int64_t items,
                    RankVisitor visit) const override {
    int chosen = 0;
    return scorer_->Rank(queries, items,
                         [&](int size, std::span<const TargetRank> ranks) -> absl::Status {
                           if (size != sizes_[static_cast<size_t>(chosen)]) return absl::OkStatus();
                           return visit(chosen++, ranks);
                         });
  }

 private:
  const Scorer* scorer_;
  std::string name_;
  std::vector<int> sizes_;  // indexes, ascending
};

// A modality's features as the projector reads them, [items, width].
absl::StatusOr<Matrix> ProjectedFeatures(const Dataset& dataset, const ModalityInfo& info,
                                         int64_t items) {
  const auto modality =
      std::find_if(dataset.modalities.begin(), dataset.modalities.end(),
                   [&](const Modality& candidate) { return candidate.name == info.name; });
  if (modality == dataset.modalities.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the model reads the modality '", info.name,
                     "', which the data lacks; give the data folder that it was trained on"));
  }
  if (modality->features.columns != info.width) {
    return absl::FailedPreconditionError(
        absl::StrCat("the features of '", info.name, "' are ", modality->features.columns,
                     " wide, but the model was trained on ", info.width,
                     " columns; give the data folder that it was trained on"));
  }
  if (modality->features.rows != items) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the features of '", info.name, "' describe ", modality->features.rows,
        " items, but the model knows ", items, "; give the data folder that it was trained on"));
  }
  NESTREC_RETURN_IF_ERROR(CheckFeatureScaling(info.scaling));
  Matrix features = modality->features;
  for (int64_t item = 0; item < features.rows; ++item)
    ScaleFeatureRow(info.scaling, features.row(item));
  return features;
}

// out [items, w_j] += alpha * features times the modality's columns, from `offset` on, of the
// level's projector.
void AddProjected(const Matrix& features, const LinearLevel& projector, int64_t offset, float alpha,
                  float* out) {
  const int width = static_cast<int>(projector.bias.size());
  const int total = static_cast<int>(projector.weight.size()) / width;
  const int columns = static_cast<int>(features.columns);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(features.rows), width,
              columns, alpha, features.values.data(), columns, projector.weight.data() + offset,
              total, 1.0f, out, width);
}

bool HasItemResidual(const ModelInfo& info) {
  const auto recipe = nlohmann::json::parse(info.recipe_json, nullptr, /*allow_exceptions=*/false);
  if (!recipe.is_object()) return false;
  const auto flag = recipe.find("item_residual");
  return flag != recipe.end() && flag->is_boolean() && flag->get<bool>();
}

// Whether W f + b is every item's embedding.
absl::StatusOr<bool> ProjectorGivesItems(const ModelView& view, const ModelInfo& info,
                                         const Dataset& dataset, int levels) {
  std::vector<Matrix> features;
  for (const ModalityInfo& modality : info.modalities) {
    NESTREC_ASSIGN_OR_RETURN(features.emplace_back(),
                             ProjectedFeatures(dataset, modality, view.item_rows - 1));
  }
  for (size_t level = 0; level < static_cast<size_t>(levels); ++level) {
    const LinearLevel& projector = view.projector[level];
    const size_t width = projector.bias.size();
    const std::span<const float> stored = view.items[level].subspan(width);  // without padding
    std::vector<float> difference(stored.size());
    for (size_t i = 0; i < stored.size(); ++i)
      difference[i] = projector.bias[i % width] - stored[i];
    int64_t offset = 0;
    for (const Matrix& modality : features) {
      AddProjected(modality, projector, offset, 1.0f, difference.data());
      offset += modality.columns;
    }
    float largest = 0;
    for (const float value : stored) largest = std::max(largest, std::abs(value));
    for (const float value : difference) {
      if (!(std::abs(value) <= kReproduced * largest)) return false;
    }
  }
  return true;
}

// Why no modality can be taken out; empty: all of them can.
absl::StatusOr<std::string> RemovalNote(const ModelView& view, const ModelInfo& info,
                                        const Dataset& dataset, int levels) {
  if (info.modalities.empty()) return std::string("the model has no modality to take out");
  if (info.modalities.size() == 1) {
    return absl::StrCat("the model has one modality, ", info.modalities.front().name,
                        ": there is nothing to take out");
  }
  NESTREC_ASSIGN_OR_RETURN(const bool reproduced, ProjectorGivesItems(view, info, dataset, levels));
  if (reproduced || HasItemResidual(info)) return std::string();
  return std::string(
      "no modality was taken out: the projector does not give the stored item embeddings from "
      "these features, so the model was trained on others");
}

}  // namespace

absl::StatusOr<Diagnosis> Diagnosis::Create(const ModelView* view, const ModelInfo* info,
                                            const Dataset* dataset,
                                            const DiagnosisOptions& options) {
  Diagnosis diagnosis(view, info, dataset);
  diagnosis.split_ = options.split;
  diagnosis.seed_ = options.seed;
  std::vector<int>& levels = diagnosis.levels_;
  if (options.dims.empty()) {
    levels = {0, (view->sizes.levels() - 1) / 2, view->sizes.levels() - 1};
    levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  }
  for (const int dim : options.dims) {
    NESTREC_ASSIGN_OR_RETURN(const int count, view->sizes.LevelsOf(dim));
    if (!levels.empty() && levels.back() >= count - 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("dim: ", dim, " comes after ", view->sizes.end(levels.back()),
                       "; give widths from narrow to wide, each once"));
    }
    levels.push_back(count - 1);
  }
  for (const int level : levels) diagnosis.dims_.push_back(view->sizes.end(level));
  if (info->dataset_fingerprint != dataset->fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the model was trained on other data (fingerprint ", info->dataset_fingerprint, ") than ",
        dataset->folder, " (", dataset->fingerprint,
        "): what it has seen is not known; diagnose it on the data that it was trained on"));
  }
  NESTREC_ASSIGN_OR_RETURN(diagnosis.note_,
                           RemovalNote(*view, *info, *dataset, diagnosis.levels()));
  return diagnosis;
}

absl::StatusOr<DiagnosisReport> Diagnosis::Run(const Evaluation& whole, Evaluator evaluate) const {
  DiagnosisReport report;
  report.dims = dims_;
  report.note = note_;
  report.whole = {.label = "all", .users = whole.users, .metrics = {}};
  std::vector<std::vector<int64_t>> ranks;
  for (const int level : levels_) {
    ranks.push_back(whole.ranks[static_cast<size_t>(level)]);
    report.whole.metrics.push_back(MetricsOfRanks(ranks.back()));
  }
  report.by_history_length = SliceByHistoryLength(*dataset_, split_, ranks);
  report.by_popularity = SliceByPopularity(*dataset_, split_, ranks);

  const auto add = [&](const Scorer& scorer, const std::string& name) -> absl::Status {
    NESTREC_ASSIGN_OR_RETURN(const Evaluation changed,
                             evaluate(ChosenSizes(&scorer, name, levels_)));
    DiagnosisRow& row = report.variations.emplace_back();
    row = {.label = name, .users = changed.users, .metrics = {}};
    for (const SizeMetrics& size : changed.sizes) row.metrics.push_back(size.metrics);
    return absl::OkStatus();
  };
  // The view's memory is the caller's: the encoders need no owner of it.
  NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(*view_, nullptr));
  const ModelScorer model(encoder.get(), levels());
  for (const HistoryChange change :
       {HistoryChange::kShuffled, HistoryChange::kReversed, HistoryChange::kLastOnly}) {
    const ChangedHistoryScorer scorer(&model, change, view_->max_len, seed_);
    NESTREC_RETURN_IF_ERROR(add(scorer, scorer.name()));
  }
  if (!note_.empty()) return report;
  for (size_t modality = 0; modality < info_->modalities.size(); ++modality) {
    NESTREC_ASSIGN_OR_RETURN(const auto items,
                             ItemsWithoutModality(*view_, *info_, *dataset_, modality, levels()));
    ModelView view = view_->Prefix(levels());
    for (size_t level = 0; level < items.size(); ++level) view.items[level] = items[level];
    NESTREC_ASSIGN_OR_RETURN(const auto without, Encoder::Create(std::move(view), nullptr));
    NESTREC_RETURN_IF_ERROR(add(ModelScorer(without.get()),
                                absl::StrCat("without ", info_->modalities[modality].name)));
  }
  return report;
}

std::string ChangedHistoryScorer::name() const {
  switch (change_) {
    case HistoryChange::kShuffled:
      return "history shuffled";
    case HistoryChange::kReversed:
      return "history reversed";
    case HistoryChange::kLastOnly:
      return "last item only";
  }
  return "";
}

std::vector<int32_t> ChangedHistoryScorer::Changed(History history) const {
  const size_t most =
      change_ == HistoryChange::kLastOnly ? size_t{1} : static_cast<size_t>(max_len_);
  const History last = history.last(std::min(history.size(), most));
  std::vector<int32_t> items(last.begin(), last.end());
  if (change_ == HistoryChange::kReversed) std::reverse(items.begin(), items.end());
  if (change_ == HistoryChange::kShuffled) {
    // Whoever scores comes by the history alone, so the order follows from its items (FNV-1a).
    uint64_t stream = 0xcbf29ce484222325u;
    for (const int32_t item : items)
      stream = (stream ^ static_cast<uint32_t>(item)) * 0x100000001b3u;
    Random(seed_, stream).Shuffle(std::span<int32_t>(items));
  }
  return items;
}

absl::Status ChangedHistoryScorer::Score(std::span<const History> histories, Visitor visit) const {
  std::vector<std::vector<int32_t>> changed;
  for (const History history : histories) changed.push_back(Changed(history));
  const std::vector<History> views(changed.begin(), changed.end());
  return scorer_->Score(views, visit);
}

absl::Status ChangedHistoryScorer::Rank(std::span<const RankQuery> queries, int64_t items,
                                        RankVisitor visit) const {
  std::vector<std::vector<int32_t>> changed;
  changed.reserve(queries.size());  // the views point to them
  std::vector<RankQuery> views(queries.begin(), queries.end());
  for (RankQuery& view : views) view.history = changed.emplace_back(Changed(view.history));
  return scorer_->Rank(views, items, visit);
}

std::vector<DiagnosisRow> SliceByHistoryLength(const Dataset& dataset, Split split,
                                               const std::vector<std::vector<int64_t>>& ranks) {
  std::vector<Bucket> buckets;
  for (size_t b = 0; b + 1 < std::size(kHistoryLengths); ++b) {
    const int64_t low = kHistoryLengths[b];
    const int64_t high = kHistoryLengths[b + 1] - 1;
    buckets.push_back({low, high, absl::StrCat(low, "-", high)});
  }
  const int64_t longest = *std::rbegin(kHistoryLengths);
  buckets.push_back({longest, std::numeric_limits<int64_t>::max(), absl::StrCat(longest, "+")});
  std::vector<int64_t> lengths;
  for (const int64_t user : EvaluatedUsers(dataset))
    lengths.push_back(static_cast<int64_t>(HistoryOf(dataset.sequence(user), split).size()));
  return Slice(buckets, lengths, ranks);
}

std::vector<DiagnosisRow> SliceByPopularity(const Dataset& dataset, Split split,
                                            const std::vector<std::vector<int64_t>>& ranks) {
  std::vector<int64_t> events(static_cast<size_t>(dataset.items()) + 1);
  for (int64_t user = 0; user < dataset.users(); ++user) {
    for (const int32_t item : TrainingItems(dataset.sequence(user)))
      ++events[static_cast<size_t>(item)];
  }
  std::vector<int64_t> counts;
  for (const int64_t user : EvaluatedUsers(dataset))
    counts.push_back(events[static_cast<size_t>(TargetOf(dataset.sequence(user), split))]);
  return Slice(PopularityBuckets(counts), counts, ranks);
}

absl::StatusOr<std::vector<std::vector<float>>> ItemsWithoutModality(const ModelView& view,
                                                                     const ModelInfo& info,
                                                                     const Dataset& dataset,
                                                                     size_t modality, int levels) {
  NESTREC_ASSIGN_OR_RETURN(
      Matrix features, ProjectedFeatures(dataset, info.modalities[modality], view.item_rows - 1));
  for (int64_t column = 0; column < features.columns; ++column) {
    double sum = 0;
    for (int64_t item = 0; item < features.rows; ++item)
      sum += features.row(item)[static_cast<size_t>(column)];
    const float mean = static_cast<float>(sum / static_cast<double>(features.rows));
    for (int64_t item = 0; item < features.rows; ++item)
      features.row(item)[static_cast<size_t>(column)] -= mean;
  }
  int64_t offset = 0;
  for (size_t m = 0; m < modality; ++m) offset += info.modalities[m].width;
  std::vector<std::vector<float>> items;
  for (size_t level = 0; level < static_cast<size_t>(levels); ++level) {
    const LinearLevel& projector = view.projector[level];
    std::vector<float>& rows =
        items.emplace_back(view.items[level].begin(), view.items[level].end());
    AddProjected(features, projector, offset, -1.0f, rows.data() + projector.bias.size());
  }
  return items;
}

}  // namespace nestrec
