#include "index/faiss_store.h"

#include <faiss/AutoTune.h>
#include <faiss/IVFlib.h>
#include <faiss/IndexFastScan.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/blas_room.h"
#include "index/faiss_compat.h"
#include "index/index_file.h"
#include "index/mapped_lists.h"

namespace nestrec::faiss_store {
namespace {

// Rows copied to FAISS at once.
constexpr int64_t kRowsPerAdd = 4096;
// Where the lists' section may begin; the payload of an index file does.
constexpr uint64_t kSectionAlignment = 64;

class ByteCounter final : public faiss::IOWriter {
 public:
  size_t operator()(const void*, size_t size, size_t count) override {
    bytes_ += size * count;
    return count;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

// Writes to a file of ours. FAISS throws when an item is not written; why stays here.
class FileWriter final : public faiss::IOWriter {
 public:
  explicit FileWriter(IndexFileWriter& file) : file_(file) {}
  size_t operator()(const void* data, size_t size, size_t count) override {
    if (status_.ok()) {
      status_ = file_.Write(data, size * count);
      bytes_ += size * count;
    }
    return status_.ok() ? count : 0;
  }
  const absl::Status& status() const { return status_; }
  uint64_t bytes() const { return bytes_; }

 private:
  IndexFileWriter& file_;
  absl::Status status_;
  uint64_t bytes_ = 0;
};

class MemoryReader final : public faiss::IOReader {
 public:
  explicit MemoryReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  size_t operator()(void* data, size_t size, size_t count) override {
    const size_t whole = size == 0 ? count : std::min(count, bytes_.size() / size);
    if (size * whole > 0) {
      std::memcpy(data, bytes_.data(), size * whole);
    }
    bytes_ = bytes_.subspan(size * whole);
    return whole;
  }
  // What is left.
  std::span<const std::byte> rest() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

uint64_t UpToSection(uint64_t bytes) {
  return (kSectionAlignment - bytes % kSectionAlignment) % kSectionAlignment;
}

// What FAISS writes of an index, whose lists are apart, and the lists.
void WriteByFaiss(faiss::Index& index, faiss::IOWriter& writer) {
  if (faiss::IndexIVF* ivf = WithPlainLists(index); ivf != nullptr) {
    const ListsTakenOut taken_out(*ivf);
    faiss::write_index(&index, &writer);
  } else {
    faiss::write_index(&index, &writer);
  }
}
const faiss::InvertedLists* ListsOf(faiss::Index& index) {
  const faiss::IndexIVF* ivf = WithPlainLists(index);
  return ivf == nullptr ? nullptr : ivf->invlists;
}

// Copies rows [begin, end) of the first levels into `out`, [end - begin, dim].
void CopyRows(const LevelVectors& vectors, int levels, int64_t begin, int64_t end, float* out) {
  for (int64_t row = begin; row < end; ++row) {
    const size_t dim = static_cast<size_t>(vectors.sizes.end(levels - 1));
    vectors.CopyRows(levels, row, {out, dim});
    out += dim;
  }
}

absl::Status CheckFinite(const LevelVectors& vectors, int levels) {
  std::vector<float> part;
  for (int level = 0; level < levels; ++level) {
    part.resize(static_cast<size_t>(vectors.sizes.width(level)));
    for (int64_t row = 1; row < vectors.rows; ++row) {
      vectors.CopyRow(level, row, part);
      for (size_t column = 0; column < part.size(); ++column) {
        if (!std::isfinite(part[column])) {
          return absl::InvalidArgumentError(
              absl::StrCat("the vector of item ", row, " has ", part[column], " in column ",
                           vectors.sizes.begin(level) + static_cast<int>(column)));
        }
      }
    }
  }
  return absl::OkStatus();
}

// FAISS opens its messages with "Error in <function> at <file>.cpp:<line>: ".
absl::string_view WithoutSourcePlace(absl::string_view message) {
  const size_t file = message.find(".cpp:");
  const size_t end = file == absl::string_view::npos ? file : message.find(": ", file);
  return absl::StripPrefix(end == absl::string_view::npos ? message : message.substr(end), ": ");
}

// How many items to train an index with: all, where its kind is not known.
int64_t TrainingItemsOf(const faiss::Index& index, int64_t items) {
  if (const faiss::IndexIVF* ivf = faiss::ivflib::try_extract_index_ivf(&index); ivf != nullptr) {
    return TrainingItems(items, static_cast<int64_t>(ivf->nlist));
  }
  const bool codes = dynamic_cast<const faiss::IndexFlatCodes*>(&index) != nullptr ||
                     dynamic_cast<const faiss::IndexFastScan*>(&index) != nullptr;
  return codes ? TrainingItems(items, 0) : items;
}

absl::Status AddVectors(const LevelVectors& vectors, int levels, const FaissIndexOptions& options,
                        faiss::Index& index) {
  const int64_t items = vectors.items();
  const int dim = vectors.sizes.end(levels - 1);
  std::vector<float> rows;
  if (!index.is_trained) {
    NESTREC_RETURN_IF_ERROR(CheckRoomForBlas(1));
    const int64_t trained = TrainingItemsOf(index, items);
    rows.resize(static_cast<size_t>(trained) * static_cast<size_t>(dim));
    for (int64_t i = 0; i < trained; ++i) {
      const int64_t row = 1 + i * items / trained;
      CopyRows(vectors, levels, row, row + 1, rows.data() + i * dim);
    }
    index.train(trained, rows.data());
  }
  if (auto* codes = dynamic_cast<faiss::IndexFlatCodes*>(&index)) {
    faiss_compat::ReserveCodes(*codes, static_cast<size_t>(items));
  }
  rows.resize(static_cast<size_t>(std::min(items, kRowsPerAdd)) * static_cast<size_t>(dim));
  rows.shrink_to_fit();
  for (int64_t begin = 1; begin < vectors.rows; begin += kRowsPerAdd) {
    const int64_t end = std::min(begin + kRowsPerAdd, vectors.rows);
    CopyRows(vectors, levels, begin, end, rows.data());
    index.add(end - begin, rows.data());
    if (options.progress != nullptr) {
      options.progress(end - 1, items);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckVectors(const LevelVectors& vectors, int levels) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  if (levels < 1 || levels > vectors.sizes.levels()) {
    return absl::InvalidArgumentError(
        absl::StrCat("levels is ", levels, "; these vectors have 1 to ", vectors.sizes.levels()));
  }
  return CheckFinite(vectors, levels);
}

absl::StatusOr<std::unique_ptr<faiss::Index>> Build(const LevelVectors& vectors, int levels,
                                                    const FaissIndexOptions& options) {
  NESTREC_RETURN_IF_ERROR(CheckVectors(vectors, levels));
  const int dim = vectors.sizes.end(levels - 1);
  const std::string what = absl::StrCat(
      "building the index \"", options.factory, "\"", options.parameters.empty() ? "" : " with ",
      options.parameters, " for ", vectors.items(), " items of dim ", dim);
  std::unique_ptr<faiss::Index> index;
  const absl::Status status = Guard(what, [&]() -> absl::Status {
    index.reset(faiss::index_factory(dim, options.factory.c_str(), faiss::METRIC_INNER_PRODUCT));
    {  // An error in them is better known before the work, which they must not change.
      const std::unique_ptr<faiss::Index> trial(
          faiss::index_factory(dim, options.factory.c_str(), faiss::METRIC_INNER_PRODUCT));
      NESTREC_RETURN_IF_ERROR(SetParameters(options.parameters, *trial));
    }
    NESTREC_RETURN_IF_ERROR(AddVectors(vectors, levels, options, *index));
    return SetParameters(options.parameters, *index);
  });
  if (status.code() == absl::StatusCode::kInternal) {
    // FAISS has one exception for all; with vectors that are known to be good it is about the
    // strings.
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", WithoutSourcePlace(absl::StripPrefix(status.message(), what))));
  }
  NESTREC_RETURN_IF_ERROR(status);
  return index;
}

absl::Status SetParameters(const std::string& parameters, faiss::Index& index) {
  if (parameters.empty()) {
    return absl::OkStatus();
  }
  const std::string what = absl::StrCat("setting ", parameters);
  const absl::Status status = Guard(what, [&]() -> absl::Status {
    faiss::ParameterSpace().set_index_parameters(&index, parameters.c_str());
    return absl::OkStatus();
  });
  return status.code() != absl::StatusCode::kInternal
             ? status
             : absl::InvalidArgumentError(absl::StrCat(
                   what, ": ", WithoutSourcePlace(absl::StripPrefix(status.message(), what))));
}

int64_t BytesOf(faiss::Index& index) {
  ByteCounter counter;
  WriteByFaiss(index, counter);
  return static_cast<int64_t>(counter.bytes() + ListSectionBytes(ListsOf(index)));
}

std::string KeyOf(const LevelVectors& vectors, int levels, const FaissIndexOptions& options,
                  absl::string_view source) {
  return absl::StrCat("source=", source, " items=", vectors.items(),
                      " dim=", vectors.sizes.end(levels - 1), " index=", options.factory,
                      " faiss=", FAISS_VERSION_MAJOR, ".", FAISS_VERSION_MINOR, ".",
                      FAISS_VERSION_PATCH, " layout=2", vectors.half() ? " vectors=float16" : "");
}

absl::Status Write(faiss::Index& index, const std::string& path, absl::string_view key) {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<IndexFileWriter> file,
                           IndexFileWriter::Create(path, key));
  FileWriter writer(*file);
  const absl::Status status = Guard(absl::StrCat("writing ", path), [&]() -> absl::Status {
    WriteByFaiss(index, writer);
    return absl::OkStatus();
  });
  NESTREC_RETURN_IF_ERROR(writer.status());
  NESTREC_RETURN_IF_ERROR(status);
  constexpr std::array<std::byte, kSectionAlignment> kZeros{};
  NESTREC_RETURN_IF_ERROR(file->Write(kZeros.data(), UpToSection(writer.bytes())));
  NESTREC_RETURN_IF_ERROR(WriteListSection(
      ListsOf(index), [&](const void* data, size_t bytes) { return file->Write(data, bytes); }));
  return file->Commit();
}

absl::StatusOr<std::unique_ptr<faiss::Index>> Read(const std::string& path, absl::string_view key,
                                                   const LevelVectors& vectors, int levels) {
  NESTREC_ASSIGN_OR_RETURN(const IndexFile file, OpenIndexFile(path, key));
  return Guard(
      absl::StrCat("reading ", path), [&]() -> absl::StatusOr<std::unique_ptr<faiss::Index>> {
        MemoryReader reader(file.payload);
        std::unique_ptr<faiss::Index> index(faiss::read_index(&reader));
        const uint64_t gap = UpToSection(file.payload.size() - reader.rest().size());
        if (index->ntotal != vectors.items() || index->d != vectors.sizes.end(levels - 1) ||
            !index->is_trained || index->metric_type != faiss::METRIC_INNER_PRODUCT ||
            reader.rest().size() < gap) {
          return absl::DataLossError(
              absl::StrCat(path, " holds an index of other vectors than it says"));
        }
        NESTREC_ASSIGN_OR_RETURN(
            std::unique_ptr<faiss::InvertedLists> lists,
            MapListSection(reader.rest().subspan(gap), vectors.items(), file.mapping));
        if (lists == nullptr) return index;
        faiss::IndexIVF* ivf = WithPlainLists(*index);
        if (ivf == nullptr || ivf->nlist != lists->nlist || ivf->code_size != lists->code_size) {
          return absl::DataLossError(absl::StrCat(path, " holds lists of another index"));
        }
        ivf->replace_invlists(lists.release(), /*own=*/true);
        return index;
      });
}

}  // namespace nestrec::faiss_store
