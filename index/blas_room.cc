#include "index/blas_room.h"

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

// More than the 128 MiB that OpenBLAS takes on x86-64, and as much elsewhere.
constexpr size_t kWorkArea = size_t{144} << 20;

}  // namespace

absl::Status CheckRoomForBlas(int threads) {
  const size_t bytes = static_cast<size_t>(threads) * kWorkArea;
  const std::unique_ptr<void, decltype(&std::free)> room(std::malloc(bytes), &std::free);
  if (room == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("out of memory: linear algebra takes a work area of ", bytes >> 20,
                     " MiB; raise the limits on the process's data and addresses (ulimit -d, -v)"));
  }
  // Written, or the compiler may leave both calls out. Nothing else of it is touched.
  *static_cast<volatile char*>(room.get()) = 0;
  return absl::OkStatus();
}

}  // namespace nestrec
