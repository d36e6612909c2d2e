// The codes of the nested index in a file (index/index_file.h), so that a start maps them instead
// of making them again.
//
// The payload, little-endian; every array begins at a multiple of 64 bytes, with zeros before it:
//
//   uint64 items; uint32 dim; uint32 groups; uint32 whether there is a G; uint32 0;
//   double the transform's error; double the largest norm
//   per group  int32 begin, end; uint32 1 for high codes + 2 for low ones; uint32 0;
//              float norm, error4 and error8 units, largest norm of 4-bit codes;
//              double mean norm, error4, error8
//   arrays     double mean [dim]; float G [dim, dim], if there is one; float steps [dim];
//              float scales [items]; uint8 bounds [items, bound bytes];
//              per group  uint8 high [items, row bytes], low, as far as there are any
//
// What they mean: index/nested_codes.h. Examples of queries are no part of the key: they make
// searches faster, not other.
//
// Thread safety: pure functions.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "index/level_vectors.h"
#include "index/nested_codes.h"

namespace nestrec::nested_store {

// What codes depend on: vectors, by their origin `source`, and the layout.
std::string KeyOf(const LevelVectors& vectors, absl::string_view source);

// Errors of IndexFileWriter.
absl::Status Write(const NestedCodes& codes, const std::string& path, absl::string_view key);

// Codes that look at the mapped file. Errors of OpenIndexFile; kDataLoss: what the file holds is no
// codes of these vectors. That is checked for shape as a whole, and for a sample of the vectors.
absl::StatusOr<std::unique_ptr<const NestedCodes>> Read(const std::string& path,
                                                        absl::string_view key,
                                                        const LevelVectors& vectors);

}  // namespace nestrec::nested_store
