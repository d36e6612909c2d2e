// Seeded pseudo-random numbers that are the same on every platform: std::mt19937_64's output is
// specified by the standard, the standard's distributions and std::shuffle are not, so they are
// here.
//
// Not thread-safe; give every thread its own.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <utility>

namespace nestrec {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  // An independent stream for (seed, stream), for example (run seed, epoch).
  Random(uint64_t seed, uint64_t stream) {
    std::seed_seq sequence{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                           static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)};
    engine_.seed(sequence);
  }

  uint64_t Next() { return engine_(); }
  // Uniform in [0, 1).
  double Uniform() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }
  // Uniform in [low, high).
  double Uniform(double low, double high) { return low + (high - low) * Uniform(); }
  // Uniform in [0, n). REQUIRES: n > 0.
  int64_t Index(int64_t n) {
    return static_cast<int64_t>(
        (static_cast<unsigned __int128>(engine_()) * static_cast<uint64_t>(n)) >> 64);
  }
  // Standard normal (Box-Muller; one of the pair is dropped so that the stream has no hidden
  // state).
  double Normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - Uniform()));
    return radius * std::cos(2.0 * M_PI * Uniform());
  }
  // Fisher-Yates.
  template <typename T>
  void Shuffle(std::span<T> values) {
    for (size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[static_cast<size_t>(Index(static_cast<int64_t>(i)))]);
    }
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace nestrec
