// What reads bytes from outside, each as one function of them: none may crash, hang or leak,
// whatever the bytes are. tests/fuzz/fuzzer.cc runs one under libFuzzer (preset `fuzz`),
// replay_test.cc runs all on the bytes of tests/fuzz/corpus with every compiler, mutation_test.cc
// on random changes of them.
//
// Not thread-safe: what costs time to make is made once and kept.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nestrec {

// The first byte, modulo 7, chooses the request: Recommend (searched for if it is valid),
// RecordEvents, UpsertItems, SimilarItems, BatchRecommend, ForgetUser, RemoveItems. The rest is the
// request as it comes over the wire.
void FuzzRequest(absl::string_view bytes);
// The server's config file.
void FuzzServerConfig(absl::string_view bytes);
// A safetensors file; and as a checkpoint, without its tensors' checksums, used if it opens.
void FuzzCheckpoint(absl::string_view bytes);
// A kept index: its frame.
void FuzzIndexFile(absl::string_view bytes);
// What stands behind a frame whose checksums are right (framed_index.h: a payload, or edits of a
// good one): codes of the nested index, float16 levels.
void FuzzNestedStore(absl::string_view bytes);
void FuzzHalfLevels(absl::string_view bytes);
// An index of FAISS behind such a frame, of these vectors or of others, whole, cut or with more
// behind it: none but a whole one of these vectors is taken. Its bytes are not changed: FAISS
// believes what its files say (docs/security.md).
void FuzzFaissStore(absl::string_view bytes);
// A session log's file of events and snapshot; and one record, its checksum made right.
void FuzzSessionFiles(absl::string_view bytes);
// A .npy file, and an item's JSON record.
void FuzzDataFiles(absl::string_view bytes);

struct FuzzTarget {
  std::string name;  // of its folder in the corpus
  void (*run)(absl::string_view bytes);
};
std::vector<FuzzTarget> AllFuzzTargets();

// A target's seeds, by name, so that every run is the same. Aborts where there are none.
std::vector<std::string> SeedsOf(const FuzzTarget& target);

}  // namespace nestrec
