#include "tests/fuzz/framed_index.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace nestrec {
namespace {

constexpr size_t kFooterBytes = 32;

uint64_t NumberAt(absl::string_view bytes, size_t size) {
  uint64_t number = 0;
  for (size_t i = 0; i < size; ++i) {
    number |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return number;
}

}  // namespace

FramedIndex::FramedIndex(absl::string_view file) {
  if (file.size() < kFooterBytes) std::abort();
  const absl::string_view framed = file.substr(0, file.size() - kFooterBytes);
  const uint64_t payload_bytes = NumberAt(file.substr(framed.size()), 8);
  if (payload_bytes > framed.size()) std::abort();
  header_ = std::string(framed.substr(0, framed.size() - payload_bytes));
  payload_ = std::string(framed.substr(header_.size()));
}

std::string FramedIndex::With(absl::string_view payload) const {
  uint64_t footer[4] = {payload.size(), XXH3_64bits(payload.data(), payload.size()),
                        XXH3_64bits(header_.data(), header_.size()), 0};
  footer[3] = XXH3_64bits(footer, 3 * sizeof(uint64_t));
  std::string file = header_;
  file.append(payload.data(), payload.size());
  file.append(reinterpret_cast<const char*>(footer), sizeof(footer));
  return file;
}

std::string Edited(std::string good, absl::string_view edits) {
  for (; edits.size() >= 4; edits.remove_prefix(4)) {
    if (!good.empty()) good[NumberAt(edits, 3) % good.size()] = edits[3];
  }
  const uint64_t cut = NumberAt(edits, edits.size());
  good.resize(good.size() - std::min<uint64_t>(cut, good.size()));
  return good;
}

std::string PayloadOf(const FramedIndex& good, absl::string_view bytes) {
  const bool as_it_is = (bytes[0] & 1) != 0;
  bytes.remove_prefix(1);
  return as_it_is ? std::string(bytes) : Edited(good.payload(), bytes);
}

}  // namespace nestrec
