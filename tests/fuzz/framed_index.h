// Index files (index/index_file.h) whose checksums are right whatever their payload is, so that
// what reads the payload is reached.
//
// Not thread-safe.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nestrec {

// A file that the index's own writer wrote.
class FramedIndex {
 public:
  // Aborts where `file` is none.
  explicit FramedIndex(absl::string_view file);

  // The same with another payload.
  std::string With(absl::string_view payload) const;
  const std::string& payload() const { return payload_; }

 private:
  std::string header_;
  std::string payload_;
};

// `good` with small changes: every four bytes of `edits` are a place (24 bits, modulo the size) and
// the byte that comes there; one to three bytes that are left are a number of bytes to cut off.
std::string Edited(std::string good, absl::string_view edits);

// The payload that a fuzzer means: behind a first byte with its lowest bit set, the bytes as they
// are; else the good one, edited by them. REQUIRES: some bytes.
std::string PayloadOf(const FramedIndex& good, absl::string_view bytes);

}  // namespace nestrec
