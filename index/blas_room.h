// OpenBLAS takes a work area for a product of matrices and keeps it; where the system gives none
// (ulimit -d, ulimit -v) it asks again for ever. So whoever is about to multiply asks here first.
//
// Thread safety: pure.
#pragma once

#include "absl/status/status.h"

namespace nestrec {

// kResourceExhausted: there is no room for the work areas of so many threads that multiply at once,
// with their size and the cure. Nothing is kept, so that others may take the room before the caller
// does.
absl::Status CheckRoomForBlas(int threads);

}  // namespace nestrec
