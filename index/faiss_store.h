// FAISS indexes as such: building, writing and reading them. Only .cc files of index/ include it;
// what others use is index/faiss_index.h.
//
// Thread safety: pure functions.
#pragma once

#include <faiss/Index.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "index/faiss_index.h"
#include "index/level_vectors.h"

namespace nestrec::faiss_store {

// kInvalidArgument: inconsistent vectors, `levels` out of range, a value that is not finite.
absl::Status CheckVectors(const LevelVectors& vectors, int levels);

// Errors of BuildFaissIndex.
absl::StatusOr<std::unique_ptr<faiss::Index>> Build(const LevelVectors& vectors, int levels,
                                                    const FaissIndexOptions& options);

// Search settings as faiss::ParameterSpace reads them. kInvalidArgument when it does not.
absl::Status SetParameters(const std::string& parameters, faiss::Index& index);

// What FAISS would write: the only measure of size that it has for every kind of index.
int64_t BytesOf(const faiss::Index& index);

// What an index depends on, search settings aside. `source` names the vectors' origin.
std::string KeyOf(const LevelVectors& vectors, int levels, const FaissIndexOptions& options,
                  absl::string_view source);

// Into an index file (index/index_file.h).
absl::Status Write(const faiss::Index& index, const std::string& path, absl::string_view key);

// Errors of OpenIndexFile; kDataLoss, kInternal: what the file holds is no index of these vectors.
// The index is a copy of the file's bytes: FAISS can leave an inverted file's lists in a mapping,
// but starts threads for every search of it.
absl::StatusOr<std::unique_ptr<faiss::Index>> Read(const std::string& path, absl::string_view key,
                                                   const LevelVectors& vectors, int levels);

}  // namespace nestrec::faiss_store
