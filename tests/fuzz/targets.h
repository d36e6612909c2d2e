// What reads bytes from outside, each as one function of them: none may crash, hang or leak,
// whatever the bytes are. tests/fuzz/fuzzer.cc runs one under libFuzzer (preset `fuzz`),
// replay_test.cc runs all on the bytes of tests/fuzz/corpus with every compiler.
//
// Not thread-safe: what costs time to make is made once and kept.
#pragma once

#include "absl/strings/string_view.h"

namespace nestrec {

// The first byte chooses the request: RecordEvents where it is odd, else Recommend, which is
// searched for if it is valid. The rest is the request as it comes over the wire.
void FuzzRequest(absl::string_view bytes);
// The server's config file.
void FuzzServerConfig(absl::string_view bytes);
// A safetensors file; and as a checkpoint, without its tensors' checksums, used if it opens.
void FuzzCheckpoint(absl::string_view bytes);
// A kept index.
void FuzzIndexFile(absl::string_view bytes);
// A session log's file of events and snapshot; and one record, its checksum made right.
void FuzzSessionFiles(absl::string_view bytes);
// A .npy file, and an item's JSON record.
void FuzzDataFiles(absl::string_view bytes);

}  // namespace nestrec
