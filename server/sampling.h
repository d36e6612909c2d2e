// Which part of a stream is looked at more closely.
//
// Pure functions.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace nestrec {

// A number that looks nothing like those of its neighbours: splitmix64 (Steele, Lea and Flood
// 2014). One to one.
constexpr uint64_t MixBits(uint64_t number) {
  number += 0x9e3779b97f4a7c15;
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
  number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
  return number ^ (number >> 31);
}

// FNV-1a.
constexpr uint64_t HashOf(absl::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

// What a sample is for: two purposes' samples of the same users have nothing to do with each other.
constexpr uint64_t SaltOf(absl::string_view purpose) { return MixBits(HashOf(purpose)); }

// Uniform in [0, 1) over numbers, and always the same for one and a purpose.
constexpr double SampleOf(uint64_t salt, uint64_t number) {
  return static_cast<double>(MixBits(MixBits(number) ^ salt) >> 11) * 0x1.0p-53;
}

// The same for texts.
constexpr double SampleOf(uint64_t salt, absl::string_view text) {
  return SampleOf(salt, HashOf(text));
}

}  // namespace nestrec
