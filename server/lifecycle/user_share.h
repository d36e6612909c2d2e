// Which share of the users somebody belongs to: the same on every server, in every release.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace nestrec {

// A number from 0 to 1 (1 excluded) that looks random and is always the same for `n`: the finaliser
// of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
inline double Spread(uint64_t n) {
  n += 0x9e3779b97f4a7c15;
  n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9;
  n = (n ^ (n >> 27)) * 0x94d049bb133111eb;
  n ^= n >> 31;
  return static_cast<double>(n >> 11) * 0x1p-53;
}

// The same for a user: by FNV-1a (Fowler, Noll and Vo, 64 bits) of the id.
inline double ShareOf(absl::string_view user_id) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : user_id) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return Spread(hash);
}

}  // namespace nestrec
