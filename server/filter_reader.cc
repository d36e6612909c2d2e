#include "server/filter_reader.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nestrec {
namespace {

// Walks the filter; the first violation ends it, so that a filter of nonsense has a short answer.
class FilterReader {
 public:
  FilterReader(const FilterLimits& limits, const AttributeView& table)
      : limits_(limits), table_(table) {}

  std::optional<Predicate> Read(const v1::ItemFilter& filter, const std::string& path, int depth) {
    if (depth > limits_.max_depth) {
      return Refuse(path, absl::StrCat("is nested more than ", limits_.max_depth, " deep"));
    }
    if (++conditions_ > limits_.max_conditions) {
      return Refuse(path, absl::StrCat("is one of more than ", limits_.max_conditions,
                                       " conditions; for a list of items use only_item_ids"));
    }
    switch (filter.condition_case()) {
      case v1::ItemFilter::kAnyOf:
        return ReadValues(filter.any_of(), path + ".any_of", Predicate::Kind::kAnyOf);
      case v1::ItemFilter::kAllOf:
        return ReadValues(filter.all_of(), path + ".all_of", Predicate::Kind::kAllOf);
      case v1::ItemFilter::kRange:
        return ReadRange(filter.range(), path + ".range");
      case v1::ItemFilter::kExists:
        return Checked(Predicate::Exists(filter.exists()), path + ".exists", path + ".exists");
      case v1::ItemFilter::kEvery:
        return ReadList(filter.every(), path + ".every", depth, Predicate::Kind::kEvery);
      case v1::ItemFilter::kSome:
        return ReadList(filter.some(), path + ".some", depth, Predicate::Kind::kSome);
      case v1::ItemFilter::kNone:
        return ReadList(filter.none(), path + ".none", depth, Predicate::Kind::kNone);
      case v1::ItemFilter::CONDITION_NOT_SET:
        break;
    }
    return Refuse(path,
                  "has no condition; set one of any_of, all_of, range, exists, every, some "
                  "and none");
  }

  std::optional<FieldViolation> TakeViolation() && { return std::move(violation_); }

 private:
  std::optional<Predicate> Refuse(const std::string& path, const std::string& description) {
    violation_ = FieldViolation{path, description};
    return std::nullopt;
  }

  // A condition on a field that exists and that suits it.
  std::optional<Predicate> Checked(Predicate predicate, const std::string& path,
                                   const std::string& field_path) {
    if (predicate.field.empty()) {
      return Refuse(field_path, "is empty; name a field of the catalogue");
    }
    if (predicate.field.size() > limits_.max_field_bytes) {
      return Refuse(field_path, absl::StrCat("has ", predicate.field.size(), " bytes; at most ",
                                             limits_.max_field_bytes, " are allowed"));
    }
    const absl::Status status = CheckCondition(predicate, table_);
    if (!status.ok()) {
      return Refuse(table_.HasField(predicate.field) ? path : field_path,
                    std::string(status.message()));
    }
    return predicate;
  }

  std::optional<Predicate> ReadValues(const v1::FieldValues& values, const std::string& path,
                                      Predicate::Kind kind) {
    if (values.values().empty()) {
      return Refuse(path + ".values", "is empty; give at least one value");
    }
    values_ += values.values_size();
    if (values_ > limits_.max_values) {
      return Refuse(path + ".values",
                    absl::StrCat(values_, " values in the filter so far; at most ",
                                 limits_.max_values, " are allowed"));
    }
    std::vector<AttributeValue> read;
    for (int i = 0; i < values.values_size(); ++i) {
      const v1::FieldValue& value = values.values(i);
      const std::string place = absl::StrCat(path, ".values[", i, "]");
      switch (value.value_case()) {
        case v1::FieldValue::kText:
          if (value.text().size() > limits_.max_text_bytes) {
            return Refuse(place, absl::StrCat("has ", value.text().size(), " bytes; at most ",
                                              limits_.max_text_bytes, " are allowed"));
          }
          read.emplace_back(value.text());
          break;
        case v1::FieldValue::kNumber:
          if (!std::isfinite(value.number())) {
            return Refuse(place, absl::StrCat(value.number(), " is not a finite number"));
          }
          read.emplace_back(value.number());
          break;
        case v1::FieldValue::kFlag:
          read.emplace_back(value.flag());
          break;
        case v1::FieldValue::VALUE_NOT_SET:
          return Refuse(place, "has no value; set one of text, number and flag");
      }
    }
    return Checked(kind == Predicate::Kind::kAnyOf
                       ? Predicate::AnyOf(values.field(), std::move(read))
                       : Predicate::AllOf(values.field(), std::move(read)),
                   path, path + ".field");
  }

  std::optional<Predicate> ReadRange(const v1::FieldRange& range, const std::string& path) {
    if (!range.has_min() && !range.has_max()) {
      return Refuse(path, "has neither min nor max; give one, or use exists");
    }
    NumberRange read{.min = std::nullopt,
                     .max = std::nullopt,
                     .exclude_min = range.exclude_min(),
                     .exclude_max = range.exclude_max()};
    if (range.has_min()) {
      read.min = range.min();
    }
    if (range.has_max()) {
      read.max = range.max();
    }
    return Checked(Predicate::InRange(range.field(), read), path, path + ".field");
  }

  std::optional<Predicate> ReadList(const v1::ItemFilterList& list, const std::string& path,
                                    int depth, Predicate::Kind kind) {
    if (list.filters().empty()) {
      return Refuse(path + ".filters", "is empty; give at least one filter");
    }
    Predicate predicate;
    predicate.kind = kind;
    for (int i = 0; i < list.filters_size(); ++i) {
      std::optional<Predicate> child =
          Read(list.filters(i), absl::StrCat(path, ".filters[", i, "]"), depth + 1);
      if (!child.has_value()) {
        return std::nullopt;
      }
      predicate.children.push_back(*std::move(child));
    }
    return predicate;
  }

  const FilterLimits& limits_;
  const AttributeView& table_;
  int conditions_ = 0;
  int values_ = 0;
  std::optional<FieldViolation> violation_;
};

}  // namespace

std::optional<Predicate> ReadFilter(const v1::ItemFilter& filter, const FilterLimits& limits,
                                    const AttributeView& table,
                                    std::vector<FieldViolation>& violations) {
  FilterReader reader(limits, table);
  std::optional<Predicate> predicate = reader.Read(filter, "filter", 1);
  if (std::optional<FieldViolation> violation = std::move(reader).TakeViolation()) {
    violations.push_back(*std::move(violation));
  }
  return predicate;
}

std::vector<GroupCap> ReadCaps(const google::protobuf::RepeatedPtrField<v1::GroupCap>& requested,
                               const FilterLimits& limits, const AttributeView& table,
                               std::vector<FieldViolation>& violations) {
  if (requested.size() > limits.max_caps) {
    violations.push_back({"caps", absl::StrCat(requested.size(), " entries; at most ",
                                               limits.max_caps, " are allowed")});
    return {};
  }
  std::vector<GroupCap> caps;
  for (int i = 0; i < requested.size(); ++i) {
    const v1::GroupCap& cap = requested[i];
    const std::string path = absl::StrCat("caps[", i, "]");
    const absl::Status status = CheckCondition(Predicate::Exists(cap.field()), table);
    if (cap.field().size() > limits.max_field_bytes) {
      violations.push_back(
          {path + ".field", absl::StrCat("has ", cap.field().size(), " bytes; at most ",
                                         limits.max_field_bytes, " are allowed")});
      return {};
    }
    if (!status.ok()) {
      violations.push_back({path + ".field", std::string(status.message())});
      return {};
    }
    if (cap.most() < 1) {
      violations.push_back({path + ".most", "0 is not at least 1"});
      return {};
    }
    if (std::any_of(caps.begin(), caps.end(),
                    [&](const GroupCap& other) { return other.field == cap.field(); })) {
      violations.push_back(
          {path + ".field", absl::StrCat("\"", cap.field(), "\" has a cap already")});
      return {};
    }
    constexpr uint32_t kNoLimit = 1 << 30;
    caps.push_back(
        {.field = cap.field(), .most = static_cast<int32_t>(std::min(cap.most(), kNoLimit))});
  }
  return caps;
}

DiversityQuery ReadDiversity(const v1::Diversity& diversity, int64_t k, const FilterLimits& limits,
                             std::vector<FieldViolation>& violations) {
  DiversityQuery query;
  if (diversity.has_relevance()) {
    query.relevance = diversity.relevance();
    if (!(query.relevance >= 0 && query.relevance <= 1)) {
      violations.push_back(
          {"diversity.relevance", absl::StrCat(diversity.relevance(), " is not in 0 to 1")});
    }
  }
  if (k > limits.max_candidates) {
    violations.push_back({"diversity", absl::StrCat("picks from at most ", limits.max_candidates,
                                                    " items; k is ", k)});
    return query;
  }
  query.candidates = std::clamp<int64_t>(4 * k, 100, limits.max_candidates);
  if (diversity.has_candidates()) {
    query.candidates = diversity.candidates();
    if (query.candidates < k || query.candidates > limits.max_candidates) {
      violations.push_back(
          {"diversity.candidates",
           absl::StrCat(query.candidates, " is not in k (", k, ") to ", limits.max_candidates)});
    }
  }
  return query;
}

}  // namespace nestrec
