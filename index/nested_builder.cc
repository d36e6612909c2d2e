#include "index/nested_builder.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "index/nested_codes.h"
#include "index/nested_index.h"
#include "index/nested_store.h"

namespace nestrec {
namespace {

absl::StatusOr<NestedIndex::Approximation> ReadApproximation(absl::string_view parameters) {
  NestedIndex::Approximation approximation;
  for (const absl::string_view part : absl::StrSplit(parameters, ',', absl::SkipWhitespace())) {
    const std::pair<absl::string_view, absl::string_view> setting =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    const absl::string_view name = absl::StripAsciiWhitespace(setting.first);
    const bool read =
        name == "recall"
            ? absl::SimpleAtof(setting.second, &approximation.recall)
            : name == "candidates" && absl::SimpleAtoi(setting.second, &approximation.candidates);
    if (!read) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameters of index \"nested\" hold \"", absl::StripAsciiWhitespace(part),
                       "\": known are recall=<0..1> and candidates=<number>"));
    }
  }
  return approximation;
}

// The first levels, which must be there.
absl::StatusOr<LevelVectors> PrefixOf(const LevelVectors& vectors, int levels) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  if (levels < 1 || levels > vectors.sizes.levels()) {
    return absl::InvalidArgumentError(absl::StrCat("levels is ", levels, "; the vectors have ",
                                                   vectors.sizes.levels(), " (sizes ",
                                                   vectors.sizes.ToString(), ")"));
  }
  return vectors.Prefix(levels);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ItemIndex>> BuildNestedIndex(
    const LevelVectors& vectors, int levels, const NestedIndexOptions& options,
    std::shared_ptr<const void> owner) {
  NESTREC_ASSIGN_OR_RETURN(const LevelVectors prefix, PrefixOf(vectors, levels));
  NESTREC_ASSIGN_OR_RETURN(const NestedIndex::Approximation approximation,
                           ReadApproximation(options.parameters));
  NESTREC_ASSIGN_OR_RETURN(
      auto index,
      NestedIndex::Create(
          prefix, {.queries = options.queries, .first_levels = levels, .reduce = options.reduce},
          std::move(owner)));
  return NestedIndex::AtLevels(std::move(index), levels, approximation);
}

absl::StatusOr<KeptIndex> LoadOrBuildNestedIndex(const LevelVectors& vectors, int levels,
                                                 const NestedIndexOptions& options,
                                                 std::shared_ptr<const void> owner,
                                                 const std::string& path,
                                                 absl::string_view source) {
  NESTREC_ASSIGN_OR_RETURN(const LevelVectors prefix, PrefixOf(vectors, levels));
  NESTREC_ASSIGN_OR_RETURN(const NestedIndex::Approximation approximation,
                           ReadApproximation(options.parameters));
  KeptIndex kept;
  const std::string key = nested_store::KeyOf(prefix, source);
  absl::StatusOr<std::unique_ptr<const NestedCodes>> codes = nested_store::Read(path, key, prefix);
  kept.load = codes.status();
  if (!codes.ok()) {
    NESTREC_ASSIGN_OR_RETURN(codes, NestedCodes::Create(prefix, {.queries = options.queries}));
    kept.save = nested_store::Write(**codes, path, key);
  }
  std::vector<std::unique_ptr<const NestedCodes>> widths;
  widths.push_back(*std::move(codes));
  NESTREC_ASSIGN_OR_RETURN(
      auto index, NestedIndex::CreateOf(std::move(widths),
                                        {.queries = options.queries, .reduce = options.reduce},
                                        std::move(owner)));
  NESTREC_ASSIGN_OR_RETURN(kept.index,
                           NestedIndex::AtLevels(std::move(index), levels, approximation));
  return kept;
}

bool HasNestedCodes(const LevelVectors& vectors, int levels) {
  return levels >= 1 && levels <= vectors.sizes.levels() &&
         NestedCodes::Worthwhile(vectors.sizes.end(levels - 1), vectors.items());
}

}  // namespace nestrec
