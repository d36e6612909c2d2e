#include "tests/fuzz/targets.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace nestrec {

std::vector<FuzzTarget> AllFuzzTargets() {
  return {{"request", FuzzRequest},          {"server_config", FuzzServerConfig},
          {"checkpoint", FuzzCheckpoint},    {"index_file", FuzzIndexFile},
          {"nested_store", FuzzNestedStore}, {"half_levels", FuzzHalfLevels},
          {"faiss_store", FuzzFaissStore},   {"session_files", FuzzSessionFiles},
          {"data_files", FuzzDataFiles}};
}

std::vector<std::string> SeedsOf(const FuzzTarget& target) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(
           absl::StrCat(NESTREC_SOURCE_DIR, "/tests/fuzz/corpus/", target.name))) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> seeds;
  for (const std::string& path : paths) {
    absl::StatusOr<std::string> seed = ReadFile(path);
    if (!seed.ok()) std::abort();
    seeds.push_back(*std::move(seed));
  }
  if (seeds.empty()) std::abort();
  return seeds;
}

}  // namespace nestrec
