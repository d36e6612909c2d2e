#include "server/index_builder.h"

#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "index/faiss_index.h"
#include "index/index_file.h"
#include "index/kept_index.h"
#include "index/nested_builder.h"
#include "server/clock.h"

namespace nestrec {
namespace {

constexpr absl::Duration kBetweenLines = absl::Seconds(10);

// The lines of one index.
class IndexLog {
 public:
  IndexLog(const Log& log, int dim, const IndexSpec& spec)
      : log_(log), dim_(dim), factory_(spec.factory), clock_(SteadyClock()), start_(clock_()) {}

  void Info(absl::string_view event, std::vector<LogField> fields) const {
    log_.Info(event, With(std::move(fields)));
  }
  void Warning(absl::string_view event, std::vector<LogField> fields) const {
    log_.Warning(event, With(std::move(fields)));
  }
  void Finished(absl::string_view event, const ItemIndex& index) const {
    Info(event,
         {{"bytes", index.bytes()},
          {"seconds", absl::StrFormat("%.3f", absl::ToDoubleSeconds(Between(start_, clock_())))}});
  }
  void Progress(int64_t added, int64_t items) {
    const Instant now = clock_();
    if (Between(last_line_.value_or(start_), now) >= kBetweenLines && added < items) {
      last_line_ = now;
      Info("index_building", {{"percent", 100 * added / items}});
    }
  }

 private:
  std::vector<LogField> With(std::vector<LogField> fields) const {
    fields.insert(fields.begin(), {{"dim", dim_}, {"index", factory_}});
    return fields;
  }

  const Log& log_;
  int dim_;
  std::string factory_;
  Clock clock_;
  Instant start_;
  std::optional<Instant> last_line_;
};

// The examples' first columns, [n, width].
std::vector<float> PrefixOfQueries(const IndexSource& source, int levels) {
  const size_t dim = static_cast<size_t>(source.vectors.sizes.max_dim());
  const size_t width = static_cast<size_t>(source.vectors.sizes.end(levels - 1));
  std::vector<float> queries;
  for (size_t begin = 0; begin + dim <= source.queries.size(); begin += dim) {
    const auto query = source.queries.subspan(begin, width);
    queries.insert(queries.end(), query.begin(), query.end());
  }
  return queries;
}

// One index as a spec asks for, from its kind's own functions.
struct IndexKind {
  std::function<absl::StatusOr<std::unique_ptr<const ItemIndex>>()> build;
  std::function<absl::StatusOr<KeptIndex>(const std::string& path)> load_or_build;
  bool worth_keeping;
};

absl::StatusOr<std::unique_ptr<const ItemIndex>> MakeOf(const IndexKind& kind,
                                                        const IndexSource& source, int dim,
                                                        const IndexSpec& spec,
                                                        const IndexLog& lines) {
  if (source.folder.empty() || !kind.worth_keeping) {
    NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<const ItemIndex> index, kind.build());
    lines.Finished("index_built", *index);
    return index;
  }
  // What is wrong with the folder shows again when the index is written.
  MakeDirectories(source.folder).IgnoreError();
  const std::string path = absl::StrCat(source.folder, "/", IndexFileName(dim, spec.factory));
  NESTREC_ASSIGN_OR_RETURN(KeptIndex kept, kind.load_or_build(path));
  if (kept.load.ok()) {
    lines.Finished("index_loaded", *kept.index);
    return std::move(kept.index);
  }
  if (!absl::IsNotFound(kept.load)) {
    lines.Warning("index_not_loaded", {{"why", kept.load.message()}});
  }
  lines.Finished("index_built", *kept.index);
  if (kept.save.ok()) {
    lines.Info("index_saved", {{"path", path}});
  } else {
    lines.Warning("index_not_saved",
                  {{"why", kept.save.message()}, {"then", "it serves from memory"}});
  }
  return std::move(kept.index);
}

}  // namespace

absl::StatusOr<std::vector<float>> ExampleQueries(const Encoder& encoder) {
  constexpr int kExamples = 1000;
  constexpr int kBatch = 50;
  constexpr int64_t kLongest = 8;
  const int64_t items = encoder.view().item_rows - 1;
  const size_t dim = static_cast<size_t>(encoder.sizes().max_dim());
  std::vector<float> queries(kExamples * dim);
  Random random(1);
  for (int begin = 0; begin < kExamples; begin += kBatch) {
    std::vector<std::vector<int32_t>> histories(kBatch);
    for (auto& history : histories) {
      history.resize(static_cast<size_t>(1 + random.Index(kLongest)));
      for (int32_t& item : history) item = static_cast<int32_t>(1 + random.Index(items));
    }
    const std::vector<History> views(histories.begin(), histories.end());
    NESTREC_RETURN_IF_ERROR(
        encoder.Encode(views, encoder.sizes().levels(),
                       std::span(queries).subspan(static_cast<size_t>(begin) * dim, kBatch * dim)));
  }
  return queries;
}

IndexSpec Resolved(const IndexSpec& spec, int dim, int64_t items) {
  if (spec.factory != IndexSpec().factory) return spec;
  IndexSpec resolved = spec;
  resolved.factory = dim >= kNestedDim && items >= kNestedItems ? kNestedFactory : "Flat";
  return resolved;
}

absl::StatusOr<std::unique_ptr<const ItemIndex>> MakeIndex(const IndexSource& source, int dim,
                                                           const IndexSpec& spec, const Log& log) {
  IndexLog lines(log, dim, spec);
  NESTREC_ASSIGN_OR_RETURN(const int levels, source.vectors.sizes.LevelsOf(dim));
  if (spec.factory == kNestedFactory) {
    const std::vector<float> queries = PrefixOfQueries(source, levels);
    const NestedIndexOptions options = {
        .parameters = spec.parameters, .queries = queries, .reduce = source.reduce};
    return MakeOf(
        {.build = [&] { return BuildNestedIndex(source.vectors, levels, options, source.owner); },
         .load_or_build =
             [&](const std::string& path) {
               return LoadOrBuildNestedIndex(source.vectors, levels, options, source.owner, path,
                                             source.version);
             },
         .worth_keeping = HasNestedCodes(source.vectors, levels)},
        source, dim, spec, lines);
  }
  FaissIndexOptions options{
      .factory = spec.factory, .parameters = spec.parameters, .extra_candidates = spec.candidates};
  options.progress = [&lines](int64_t added, int64_t items) { lines.Progress(added, items); };
  return MakeOf(
      {.build = [&] { return BuildFaissIndex(source.vectors, levels, options, source.owner); },
       .load_or_build =
           [&](const std::string& path) {
             return LoadOrBuildFaissIndex(source.vectors, levels, options, source.owner, path,
                                          source.version);
           },
       .worth_keeping = IsWorthKeeping(options)},
      source, dim, spec, lines);
}

}  // namespace nestrec
