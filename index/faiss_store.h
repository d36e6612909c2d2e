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

// What a file of it holds: the only measure of size that there is for every kind of index. The
// index is changed for as long as this takes.
int64_t BytesOf(faiss::Index& index);

// What an index depends on, search settings aside. `source` names the vectors' origin.
std::string KeyOf(const LevelVectors& vectors, int levels, const FaissIndexOptions& options,
                  absl::string_view source);

// Into an index file (index/index_file.h): what FAISS writes, zeros up to a multiple of 64 bytes,
// and the section of mapped_lists.h with an inverted file's lists, which FAISS's part has empty.
// The index is changed for as long as this takes.
absl::Status Write(faiss::Index& index, const std::string& path, absl::string_view key);

// Errors of OpenIndexFile; kDataLoss, kInternal: what the file holds is no index of these vectors.
// An inverted file's lists stay in the mapped file, if they are of the plain kind (all but those of
// 4-bit "fs" codes); all else is a copy, since FAISS owns what its indexes are made of.
absl::StatusOr<std::unique_ptr<faiss::Index>> Read(const std::string& path, absl::string_view key,
                                                   const LevelVectors& vectors, int levels);

}  // namespace nestrec::faiss_store
