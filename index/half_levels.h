// Item vectors rounded to float16: half the bytes of the vectors that they are made of, which
// nothing that searches reads any more.
//
//   NESTREC_ASSIGN_OR_RETURN(HalfLevels halves, RoundLevels(vectors));
//   NESTREC_ASSIGN_OR_RETURN(auto index, NestedIndex::Create(halves.vectors, {}, halves.owner));
//
// Every value is rounded to the nearest half, ties to the even one: a part in 2048 at most, and
// never more than 2^-25 below 2^-14.
//
// Thread safety: pure functions.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "index/level_vectors.h"

namespace nestrec {

struct HalfLevels {
  LevelVectors vectors;               // halves
  std::shared_ptr<const void> owner;  // of what they look at
  // As KeptIndex's: whether all were read from files, else why not; whether they were written.
  absl::Status load;
  absl::Status save;
};

// In memory. kInvalidArgument: inconsistent vectors, or a value that is not finite or beyond
// float16 (+-65504), with its item and column. kResourceExhausted: out of memory.
absl::StatusOr<HalfLevels> RoundLevels(const LevelVectors& vectors);

// The same in files of `folder`, one a level, "level<j>-float16.index" (index/index_file.h): mapped
// where they are of the same origin, shape and layout and whole; else made and written, and mapped
// from then on. The payload is [rows, width] halves. `source` says which vectors these are, such as
// a checkpoint's fingerprint: equal sources must mean equal vectors, which a sample of the rows is
// asked about. Where files cannot be written, the halves stay in memory, and `save` says why.
//
// Errors of RoundLevels alone.
absl::StatusOr<HalfLevels> LoadOrRoundLevels(const LevelVectors& vectors, const std::string& folder,
                                             absl::string_view source);

}  // namespace nestrec
