#include "model/checkpoint.h"

#include <cstdlib>
#include <vector>

#include "base/safetensors.h"
#include "model/encoder.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace nestrec {

void FuzzCheckpoint(absl::string_view bytes) {
  const MemoryFile file(bytes);
  if (const auto tensors = SafetensorsFile::Open(file.path(), /*require_checksums=*/false);
      tensors.ok()) {
    for (const TensorInfo& tensor : (*tensors)->tensors()) {
      (*tensors)->Verify(tensor).IgnoreError();
    }
    (*tensors)->VerifyPadding().IgnoreError();
  }
  const auto checkpoint = Checkpoint::Open(file.path(), {.verify = false});
  if (!checkpoint.ok()) return;
  const Catalogue& catalogue = *(*checkpoint)->catalogue();
  for (int64_t item = 1; item <= catalogue.size(); ++item) catalogue.Field(item, "title");
  const auto encoder = Encoder::Create((*checkpoint)->view(), nullptr);
  if (!encoder.ok()) return;
  const std::vector<int32_t> items = {1};
  const History history(items);
  std::vector<float> z(static_cast<size_t>((*checkpoint)->sizes().max_dim()));
  (*encoder)->Encode(std::span(&history, 1), (*checkpoint)->sizes().levels(), z).IgnoreError();
}

}  // namespace nestrec
