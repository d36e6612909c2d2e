// A file for an index that took long to build: what it was built from, and its bytes.
//
//   header   "NRINDEX" and a 0; uint32 version (1); uint32 bytes of the key; the key; zeros up to a
//            multiple of 64 bytes
//   payload  the index, as its library writes it
//   footer   uint64 bytes of the payload; uint64 XXH3-64 of the payload; of the header; of the
//            footer so far
//
// Numbers are little-endian. The checksums are in the footer so that a payload of unknown length
// can be written in one pass. The key is text for people: what two files must have in common so
// that one can stand for the other.
//
// A file appears under its name complete or not at all (base/file.h). Any number of processes may
// write the same name; the last one stays.
//
// Thread safety: a writer is for one thread; everything else may run in parallel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file.h"

namespace nestrec {

class IndexFileWriter {
 public:
  // Removes what writers of this path left behind that were killed. Errors of AtomicFileWriter.
  static absl::StatusOr<std::unique_ptr<IndexFileWriter>> Create(const std::string& path,
                                                                 absl::string_view key);
  ~IndexFileWriter();

  // Appends to the payload.
  absl::Status Write(const void* data, size_t size_bytes);
  // Without it nothing appears.
  absl::Status Commit();

 private:
  struct Hash;
  IndexFileWriter(std::unique_ptr<AtomicFileWriter> file, uint64_t header_hash);

  std::unique_ptr<AtomicFileWriter> file_;
  std::unique_ptr<Hash> hash_;  // of the payload
  uint64_t header_hash_;
  uint64_t payload_bytes_ = 0;
};

// A file name for the index that a factory string says, at one width:
// "dim64-IVF256_Flat-<hash>.index".
std::string IndexFileName(int dim, absl::string_view factory);

struct IndexFile {
  std::shared_ptr<const MappedFile> mapping;  // keeps the payload alive
  std::span<const std::byte> payload;
};

// Maps the file and checks every byte of it. kNotFound: there is none. kFailedPrecondition: of
// another kind or version, or with another key: both are named. kDataLoss: cut or changed, and
// where. Other errors of MappedFile.
absl::StatusOr<IndexFile> OpenIndexFile(const std::string& path, absl::string_view key);

}  // namespace nestrec
