// A fixed-size array of plain values for scans: begins at a cache line, and a large one asks for
// huge pages, without which a scan of gigabytes waits for the page tables.
//
//   AlignedArray<uint8_t> codes(rows * row_bytes);   // zeros; throws std::bad_alloc
//
// Thread safety: as for a plain array.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace nestrec {

template <typename T>
class AlignedArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedArray() = default;
  explicit AlignedArray(size_t size) : size_(size) {
    if (size == 0) return;
    if (size > (SIZE_MAX - kHugePage) / sizeof(T)) throw std::bad_alloc();
    const size_t bytes = size * sizeof(T);
    const bool large = bytes >= kLarge;
    const size_t alignment = large ? kHugePage : kCacheLine;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, rounded));
    if (data_ == nullptr) throw std::bad_alloc();
    if (large) {
      // Only a hint: where it is refused the array is slower, not wrong.
      (void)madvise(data_, rounded, MADV_HUGEPAGE);
    }
    std::memset(static_cast<void*>(data_), 0, rounded);
  }
  ~AlignedArray() { std::free(data_); }
  AlignedArray(AlignedArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  std::span<T> span() { return {data_, size_}; }
  std::span<const T> span() const { return {data_, size_}; }

 private:
  static constexpr size_t kCacheLine = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;
  static constexpr size_t kLarge = 4 * kHugePage;  // below, rounding up would waste too much

  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nestrec
