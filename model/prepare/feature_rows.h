// Takes ready features (.npy, one row per item, in somebody's order) into the order of a data
// folder's items.
//
// Pure functions apart from the files; memory is the file's array and the result.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/npy.h"

namespace nestrec {

// Which row of the file belongs to which external item id.
using RowOfId = absl::flat_hash_map<std::string, int64_t>;

// Reads a file with one external item id per line: line r is the id of row r-1. Spaces around an id
// do not count. kInvalidArgument, naming the line, for an empty one (except at the end) or an id
// that comes twice.
absl::StatusOr<RowOfId> ReadFeatureIds(const std::string& path);

// The rows of `matrix` in the order of `rows`; zeros for -1. REQUIRES: -1 <= rows[i] < matrix.rows.
Matrix SelectRows(const Matrix& matrix, std::span<const int64_t> rows);

}  // namespace nestrec
