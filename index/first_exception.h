// Exceptions and parallel regions: none may leave a region by itself.
//
//   FirstException first;
//   #pragma omp parallel for
//   for (...) first.Guard([&] { Work(); });
//   first.Rethrow();
#pragma once

#include <atomic>
#include <exception>

namespace nestrec {

// Carries the first exception out of a parallel region, which none may leave by itself.
class FirstException {
 public:
  template <typename Work>
  void Guard(Work&& work) {
    try {
      work();
    } catch (...) {
      if (!taken_.exchange(true)) exception_ = std::current_exception();
    }
  }
  // After the region.
  void Rethrow() const {
    if (exception_ != nullptr) std::rethrow_exception(exception_);
  }

 private:
  std::atomic<bool> taken_ = false;
  std::exception_ptr exception_;
};

}  // namespace nestrec
