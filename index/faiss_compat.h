// What differs between the FAISS releases that nestrec is built with (1.7.3 to 1.11), in one place.
// Only .cc files of index/ include it.
#pragma once

#include <faiss/Index.h>
#include <faiss/IndexFlatCodes.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/impl/IDSelector.h>

#include <cstddef>
#include <memory>
#include <utility>

namespace nestrec::faiss_compat {

// faiss::Index::idx_t up to 1.7.3, faiss::idx_t since.
using IndexId = decltype(faiss::Index::ntotal);

// Search parameters that carry a selector. FAISS wants a type of its own for some kinds of index
// (1.7.3 refuses the plain one for HNSW), and the index's settings come from the parameters then,
// so they are copied.
class SelectorParameters {
 public:
  // `index` and `selector` must outlive this object.
  SelectorParameters(const faiss::Index& index, faiss::IDSelector* selector) {
    if (const auto* transform = dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
      inner_ = ForPlainIndex(*transform->index, selector);
      auto parameters = std::make_unique<faiss::SearchParametersPreTransform>();
      parameters->index_params = inner_.get();
      outer_ = std::move(parameters);
    } else {
      outer_ = ForPlainIndex(index, selector);
    }
  }
  const faiss::SearchParameters* get() const { return outer_.get(); }

 private:
  static std::unique_ptr<faiss::SearchParameters> ForPlainIndex(const faiss::Index& index,
                                                                faiss::IDSelector* selector) {
    std::unique_ptr<faiss::SearchParameters> parameters;
    if (const auto* ivf = dynamic_cast<const faiss::IndexIVF*>(&index)) {
      auto own = std::make_unique<faiss::SearchParametersIVF>();
      own->nprobe = ivf->nprobe;
      own->max_codes = ivf->max_codes;
      parameters = std::move(own);
    } else if (const auto* hnsw = dynamic_cast<const faiss::IndexHNSW*>(&index)) {
      auto own = std::make_unique<faiss::SearchParametersHNSW>();
      own->efSearch = hnsw->hnsw.efSearch;
      own->check_relative_distance = hnsw->hnsw.check_relative_distance;
      parameters = std::move(own);
    } else {
      parameters = std::make_unique<faiss::SearchParameters>();
    }
    parameters->sel = selector;
    return parameters;
  }

  std::unique_ptr<faiss::SearchParameters> inner_;
  std::unique_ptr<faiss::SearchParameters> outer_;
};

// Makes room for `count` vectors, so that adding them in parts does not double the memory. Later
// releases hold the codes in a type of their own.
template <typename FlatCodes>
void ReserveCodes(FlatCodes& index, size_t count) {
  if constexpr (requires { index.codes.reserve(size_t{}); }) {
    index.codes.reserve(count * index.code_size);
  }
}

}  // namespace nestrec::faiss_compat
