#include "cli/embedding_export.h"

#include <charconv>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/json_text.h"
#include "base/npy.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr absl::string_view kJsonLines = ".jsonl";
constexpr absl::string_view kNpy = ".npy";
constexpr int64_t kItemsPerReport = 4096;

// The vector of `item`, its levels side by side.
absl::Status Gather(const Checkpoint& checkpoint, int64_t item, std::vector<float>& vector) {
  const ModelView& view = checkpoint.view();
  vector.clear();
  for (int level = 0; level < view.sizes.levels(); ++level) {
    const auto width = static_cast<size_t>(view.sizes.width(level));
    const std::span<const float> row =
        view.items[static_cast<size_t>(level)].subspan(static_cast<size_t>(item) * width, width);
    vector.insert(vector.end(), row.begin(), row.end());
  }
  for (size_t column = 0; column < vector.size(); ++column) {
    if (!std::isfinite(vector[column])) {
      return absl::InvalidArgumentError(absl::StrCat(
          checkpoint.file().path(), ": column ", column, " of item ", item, " (",
          JsonText(checkpoint.catalogue()->id(item)), ") is ", vector[column],
          "; vectors must be finite numbers: train the model anew, or export a narrower --dim"));
    }
  }
  return absl::OkStatus();
}

// The shortest text that reads back as the same float32.
void AppendNumber(float value, std::string& out) {
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value);
  out.append(text, end.ptr);
}

absl::Status WriteJsonLines(const Checkpoint& checkpoint, const std::string& output,
                            absl::FunctionRef<void(int64_t)> progress) {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> writer,
                           AtomicFileWriter::Create(output));
  std::vector<float> vector;
  std::string line;
  for (int64_t item = 1; item <= checkpoint.catalogue()->size(); ++item) {
    NESTREC_RETURN_IF_ERROR(Gather(checkpoint, item, vector));
    line = "{\"item_id\":";
    AppendJsonText(checkpoint.catalogue()->id(item), line);
    line += ",\"vector\":";
    char before = '[';
    for (const float value : vector) {
      line += before;
      AppendNumber(value, line);
      before = ',';
    }
    line += "]}\n";
    NESTREC_RETURN_IF_ERROR(writer->Write(line));
    if (item % kItemsPerReport == 0) progress(item);
  }
  return writer->Commit();
}

absl::Status WriteNpyAndIds(const Checkpoint& checkpoint, const std::string& output,
                            const std::string& ids_output,
                            absl::FunctionRef<void(int64_t)> progress) {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> matrix,
                           AtomicFileWriter::Create(output));
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> ids,
                           AtomicFileWriter::Create(ids_output));
  const int64_t items = checkpoint.catalogue()->size();
  NESTREC_RETURN_IF_ERROR(matrix->Write(NpyHeader(items, checkpoint.sizes().max_dim())));
  std::vector<float> vector;
  for (int64_t item = 1; item <= items; ++item) {
    NESTREC_RETURN_IF_ERROR(Gather(checkpoint, item, vector));
    NESTREC_RETURN_IF_ERROR(matrix->Write(vector.data(), vector.size() * sizeof(float)));
    NESTREC_RETURN_IF_ERROR(
        ids->Write(absl::StrCat(JsonText(checkpoint.catalogue()->id(item)), "\n")));
    if (item % kItemsPerReport == 0) progress(item);
  }
  NESTREC_RETURN_IF_ERROR(matrix->Flush());
  NESTREC_RETURN_IF_ERROR(ids->Flush());
  std::error_code error;
  std::filesystem::remove(output, error);
  if (error) return ErrnoStatus(error.value(), "cannot remove", output);
  NESTREC_RETURN_IF_ERROR(ids->Commit());
  return matrix->Commit();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> EmbeddingFiles(const std::string& output) {
  if (absl::EndsWith(output, kJsonLines)) return std::vector<std::string>{output};
  if (absl::EndsWith(output, kNpy)) {
    return std::vector<std::string>{output,
                                    absl::StrCat(absl::StripSuffix(output, kNpy), ".ids.jsonl")};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--output ", output, ": the name says the format of vectors: ", kJsonLines,
                   " (a line per item) or ", kNpy, " (a matrix, its ids beside it)"));
}

absl::Status ExportEmbeddings(const Checkpoint& checkpoint, const std::string& output,
                              absl::FunctionRef<void(int64_t items)> progress) {
  NESTREC_ASSIGN_OR_RETURN(const std::vector<std::string> files, EmbeddingFiles(output));
  if (files.size() == 1) return WriteJsonLines(checkpoint, output, progress);
  return WriteNpyAndIds(checkpoint, output, files[1], progress);
}

}  // namespace nestrec
