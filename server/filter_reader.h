// From the request's filter, caps and diversity to what index/ works with, with a violation for
// everything that is wrong, named by its path: "filter.every.filters[1].range.field".
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "index/attribute_view.h"
#include "index/diversity.h"
#include "index/predicate.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/status_details.h"

namespace nestrec {

// proto/nestrec/v1/recommend.proto documents them.
struct FilterLimits {
  int max_depth = 8;
  int max_conditions = 200;
  int max_values = 10'000;
  size_t max_field_bytes = 64;
  size_t max_text_bytes = AttributeTable::kMaxTextBytes;
  int max_caps = 8;
  int64_t max_candidates = 500;  // of diversity
};

// How a list is to be made diverse.
struct DiversityQuery {
  double relevance = 0.7;
  int64_t candidates = 0;
};

// Nothing where `violations` grew.
std::optional<Predicate> ReadFilter(const v1::ItemFilter& filter, const FilterLimits& limits,
                                    const AttributeView& table,
                                    std::vector<FieldViolation>& violations);
std::vector<GroupCap> ReadCaps(const google::protobuf::RepeatedPtrField<v1::GroupCap>& caps,
                               const FilterLimits& limits, const AttributeView& table,
                               std::vector<FieldViolation>& violations);
// `k` is the request's, within its limits.
DiversityQuery ReadDiversity(const v1::Diversity& diversity, int64_t k, const FilterLimits& limits,
                             std::vector<FieldViolation>& violations);

}  // namespace nestrec
