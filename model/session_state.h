// What a recurrent model remembers of one session: for every block the state h of the linear
// recurrence (arXiv 2409.16627, equation 4), complex, and the vector z of the last event.
//
// Level-major: level j holds `planes` rows of w_j floats (h_re and h_im of block 0, of block 1,
// ..., z), and the levels follow each other. So the state of a narrower model is the first levels
// of a wider one's, and a level may lag behind: each says which events it has absorbed.
//
// Events have numbers: 0 is the first that was ever recorded in the session.
//
// A value. Thread safety: const methods may run in parallel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/nested_sizes.h"

namespace nestrec {

class SessionState {
 public:
  // The events that a level has absorbed, starting from h = 0: [begin, end).
  struct Absorbed {
    int64_t begin = 0;
    int64_t end = -1;    // -1: the level was never computed
    bool has_z = false;  // whether z is that of event end - 1

    bool started() const { return end >= 0; }
    friend bool operator==(const Absorbed&, const Absorbed&) = default;
  };

  SessionState() = default;  // of no level

  int levels() const { return static_cast<int>(levels_.size()); }
  const Absorbed& absorbed(int level) const { return levels_[Index(level)].absorbed; }
  void set_absorbed(int level, const Absorbed& absorbed) {
    levels_[Index(level)].absorbed = absorbed;
  }

  // [w_j]. REQUIRES: level < levels(), plane < the planes given to Grow.
  std::span<const float> plane(int level, int plane) const {
    const Level& of = levels_[Index(level)];
    return {values_.data() + of.offset + static_cast<size_t>(plane) * of.width, of.width};
  }
  std::span<float> plane(int level, int plane) {
    const Level& of = levels_[Index(level)];
    return {values_.data() + of.offset + static_cast<size_t>(plane) * of.width, of.width};
  }

  // Adds levels that were never computed, up to `levels`; keeps those that are there. REQUIRES: the
  // same sizes and planes at every call.
  void Grow(const NestedSizes& sizes, int levels, int planes);

  // Of every level the one of the two that has absorbed more; `this` where they are even. REQUIRES:
  // states of one model and one session.
  void MergeFrom(const SessionState& other, const NestedSizes& sizes, int planes);

  // Memory in all, this object included.
  size_t bytes() const {
    return sizeof(*this) + values_.capacity() * sizeof(float) + levels_.capacity() * sizeof(Level);
  }

 private:
  struct Level {
    Absorbed absorbed;
    size_t offset;  // in values_
    size_t width;
  };
  static size_t Index(int level) { return static_cast<size_t>(level); }

  std::vector<Level> levels_;
  std::vector<float> values_;
};

}  // namespace nestrec
