#include "model/session_state.h"

#include <algorithm>

namespace nestrec {

void SessionState::Grow(const NestedSizes& sizes, int levels, int planes) {
  if (levels <= this->levels()) return;
  levels_.reserve(Index(levels));
  values_.reserve(static_cast<size_t>(planes) * static_cast<size_t>(sizes.end(levels - 1)));
  while (this->levels() < levels) {
    const auto width = static_cast<size_t>(sizes.width(this->levels()));
    levels_.push_back({.absorbed = {}, .offset = values_.size(), .width = width});
    values_.resize(values_.size() + static_cast<size_t>(planes) * width);
  }
}

void SessionState::MergeFrom(const SessionState& other, const NestedSizes& sizes, int planes) {
  Grow(sizes, other.levels(), planes);
  for (int level = 0; level < other.levels(); ++level) {
    if (other.absorbed(level).end <= absorbed(level).end) continue;
    set_absorbed(level, other.absorbed(level));
    for (int plane = 0; plane < planes; ++plane) {
      const std::span<const float> from = other.plane(level, plane);
      std::copy(from.begin(), from.end(), this->plane(level, plane).begin());
    }
  }
}

}  // namespace nestrec
