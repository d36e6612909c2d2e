// What stands behind an index file's checksums.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/random.h"
#include "index/faiss_index.h"
#include "index/faiss_store.h"
#include "index/half_levels.h"
#include "index/nested_index.h"
#include "index/nested_store.h"
#include "tests/fuzz/framed_index.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/fuzz/targets.h"

namespace nestrec {
namespace {

constexpr char kSource[] = "fuzz";
constexpr char kHalfLevel[] = "level0-float16.index";

// Random vectors, and who owns them.
struct Vectors {
  Vectors(const std::vector<int>& sizes, int64_t items)
      : view{.sizes = *NestedSizes::Create(sizes), .rows = items + 1, .levels = {}} {
    Random random(1);
    for (int level = 0; level < view.sizes.levels(); ++level) {
      std::vector<float>& values = memory.emplace_back(
          static_cast<size_t>(view.rows) * static_cast<size_t>(view.sizes.width(level)));
      for (float& value : values) value = static_cast<float>(random.Uniform(-1, 1));
    }
    for (const std::vector<float>& values : memory) view.levels.push_back(values);
  }

  std::vector<std::vector<float>> memory;
  LevelVectors view;
};

std::string FileIn(const ScratchFolder& folder, const std::string& name) {
  absl::StatusOr<std::string> file = ReadFile(absl::StrCat(folder.path(), "/", name));
  if (!file.ok()) std::abort();
  return *std::move(file);
}

}  // namespace

void FuzzNestedStore(absl::string_view bytes) {
  if (bytes.empty()) return;
  static const Vectors* const vectors = new Vectors({16, 32}, NestedCodes::kLeastItems);
  static const std::string* const key =
      new std::string(nested_store::KeyOf(vectors->view, kSource));
  static const FramedIndex* const good = [] {
    const ScratchFolder folder;
    const auto codes = NestedCodes::Create(vectors->view, {.queries = {}});
    if (!codes.ok() ||
        !nested_store::Write(**codes, absl::StrCat(folder.path(), "/codes"), *key).ok()) {
      std::abort();
    }
    return new FramedIndex(FileIn(folder, "codes"));
  }();
  const MemoryFile file(good->With(PayloadOf(*good, bytes)));
  auto codes = nested_store::Read(file.path(), *key, vectors->view);
  if (!codes.ok()) return;
  // What is whole can be searched; bounds that are not those of the vectors find other items.
  std::vector<std::unique_ptr<const NestedCodes>> all;
  all.push_back(std::move(*codes));
  const auto index =
      NestedIndex::CreateOf(std::move(all), {.queries = {}, .measure = false}, nullptr);
  if (!index.ok()) return;
  const std::vector<float> query(32, 0.25f);
  const auto result = (*index)->Search(query, 2, {.k = 5});
  if (!result.ok()) return;
  for (const ScoredItem& item : result->items) {
    if (item.item < 1 || item.item > vectors->view.items()) std::abort();
  }
}

void FuzzHalfLevels(absl::string_view bytes) {
  if (bytes.empty()) return;
  static const Vectors* const vectors = new Vectors({4}, 12);
  static const FramedIndex* const good = [] {
    const ScratchFolder folder;
    if (!LoadOrRoundLevels(vectors->view, folder.path(), kSource).ok()) std::abort();
    return new FramedIndex(FileIn(folder, kHalfLevel));
  }();
  const ScratchFolder folder;
  {
    const std::string file = good->With(PayloadOf(*good, bytes));
    std::ofstream(absl::StrCat(folder.path(), "/", kHalfLevel), std::ios::binary)
        .write(file.data(), static_cast<std::streamsize>(file.size()));
  }
  const auto halves = LoadOrRoundLevels(vectors->view, folder.path(), kSource);
  const auto rounded = RoundLevels(vectors->view);
  if (!halves.ok() || !rounded.ok()) std::abort();
  // Whatever stood there: a catalogue this small is in the sample as a whole, but for row 0.
  const auto& found = halves->vectors.halves[0];
  const auto& expected = rounded->vectors.halves[0];
  if (!std::equal(found.begin() + 4, found.end(), expected.begin() + 4, expected.end())) {
    std::abort();
  }
}

void FuzzFaissStore(absl::string_view bytes) {
  if (bytes.size() < 3) return;
  constexpr std::array<const char*, 3> kFactories = {"Flat", "SQ8", "HNSW4"};
  constexpr std::array<int, 2> kDims = {4, 8};
  static const std::array<const Vectors*, 2> kVectors = {new Vectors({kDims[0]}, 40),
                                                         new Vectors({kDims[1]}, 41)};
  static const std::string* const key = new std::string("fuzz");
  static std::array<std::array<std::unique_ptr<FramedIndex>, 2>, kFactories.size()> goods;
  const size_t kind = static_cast<unsigned char>(bytes[0]) % kFactories.size();
  const size_t of = static_cast<unsigned char>(bytes[1]) % kVectors.size();
  const size_t wanted = static_cast<unsigned char>(bytes[2]) % kVectors.size();
  bytes.remove_prefix(3);
  std::unique_ptr<FramedIndex>& good = goods[kind][of];
  if (good == nullptr) {
    const ScratchFolder folder;
    const std::string path = absl::StrCat(folder.path(), "/index");
    const FaissIndexOptions options = {.factory = kFactories[kind], .parameters = ""};
    const auto built = faiss_store::Build(kVectors[of]->view, 1, options);
    if (!built.ok() || !faiss_store::Write(**built, path, *key).ok()) std::abort();
    good = std::make_unique<FramedIndex>(FileIn(folder, "index"));
  }
  // Two bytes: how many are cut off; the rest comes in their place.
  std::string payload = good->payload();
  if (bytes.size() >= 2) {
    const size_t cut =
        static_cast<unsigned char>(bytes[0]) + 256u * static_cast<unsigned char>(bytes[1]);
    payload.resize(payload.size() - std::min(cut, payload.size()));
    bytes.remove_prefix(2);
    // Nothing comes in the place of what was cut: FAISS would read it.
    if (cut == 0) payload.append(bytes.data(), bytes.size());
  }
  const bool whole = payload == good->payload() && of == wanted;
  const MemoryFile file(good->With(payload));
  const auto index = faiss_store::Read(file.path(), *key, kVectors[wanted]->view, 1);
  if (index.ok() != whole) std::abort();
}

}  // namespace nestrec
