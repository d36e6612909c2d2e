// What differs between the FAISS releases that nestrec is built with (1.7.3 to 1.11), in one place.
// Only .cc files of index/ include it.
#pragma once

#include <faiss/Index.h>
#include <faiss/IndexFlatCodes.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/impl/IDSelector.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <utility>

namespace nestrec::faiss_compat {

// faiss::Index::idx_t up to 1.7.3, faiss::idx_t since.
using IndexId = decltype(faiss::Index::ntotal);

// Search parameters that carry a selector. FAISS wants a type of its own for some kinds of index
// (1.7.3 refuses the plain one for HNSW), and the index's settings come from the parameters then,
// so they are copied. `effort`, at least 1, multiplies how far a search looks (nprobe, efSearch,
// max_codes): a selector that lets one item in ten pass needs ten times the look to see as many
// items as the settings meant.
class SelectorParameters {
 public:
  // `index` and `selector` must outlive this object.
  SelectorParameters(const faiss::Index& index, faiss::IDSelector* selector, double effort = 1) {
    if (const auto* transform = dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
      inner_ = ForPlainIndex(*transform->index, selector, effort);
      auto parameters = std::make_unique<faiss::SearchParametersPreTransform>();
      parameters->index_params = inner_.get();
      outer_ = std::move(parameters);
    } else {
      outer_ = ForPlainIndex(index, selector, effort);
    }
  }
  const faiss::SearchParameters* get() const { return outer_.get(); }

 private:
  static std::unique_ptr<faiss::SearchParameters> ForPlainIndex(const faiss::Index& index,
                                                                faiss::IDSelector* selector,
                                                                double effort) {
    std::unique_ptr<faiss::SearchParameters> parameters;
    if (const auto* ivf = dynamic_cast<const faiss::IndexIVF*>(&index)) {
      auto own = std::make_unique<faiss::SearchParametersIVF>();
      own->nprobe = Multiplied(ivf->nprobe, effort, ivf->nlist);
      own->max_codes = Multiplied(ivf->max_codes, effort, static_cast<size_t>(ivf->ntotal));
      parameters = std::move(own);
    } else if (const auto* hnsw = dynamic_cast<const faiss::IndexHNSW*>(&index)) {
      auto own = std::make_unique<faiss::SearchParametersHNSW>();
      own->efSearch = Multiplied(hnsw->hnsw.efSearch, effort, static_cast<int>(hnsw->ntotal));
      own->check_relative_distance = hnsw->hnsw.check_relative_distance;
      parameters = std::move(own);
    } else {
      parameters = std::make_unique<faiss::SearchParameters>();
    }
    parameters->sel = selector;
    return parameters;
  }

  // `setting` * effort, up to `most` where that is more than the setting. 0 means no limit to
  // FAISS.
  template <typename Integer>
  static Integer Multiplied(Integer setting, double effort, Integer most) {
    const double wanted = std::ceil(static_cast<double>(setting) * effort);
    return wanted >= static_cast<double>(most) ? std::max(setting, most)
                                               : static_cast<Integer>(wanted);
  }

  std::unique_ptr<faiss::SearchParameters> inner_;
  std::unique_ptr<faiss::SearchParameters> outer_;
};

// About what a search looks at when `share` of the vectors pass the selector and the settings are
// multiplied by 1 / share.
struct Look {
  double visited = 0;   // vectors that are asked the selector or followed
  double computed = 0;  // of them, those whose distance is computed
  bool jumps = false;   // each is somewhere else in memory
};
inline Look LookOf(const faiss::Index& index, double share) {
  const double all = static_cast<double>(index.ntotal);
  if (const auto* transform = dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
    return LookOf(*transform->index, share);
  }
  if (const auto* ivf = dynamic_cast<const faiss::IndexIVF*>(&index)) {
    const double probed = static_cast<double>(ivf->nprobe) / static_cast<double>(ivf->nlist);
    const double visited = all * std::min(1.0, probed / share);
    return {.visited = visited, .computed = visited * share};
  }
  if (const auto* hnsw = dynamic_cast<const faiss::IndexHNSW*>(&index)) {
    // Half the neighbours of the efSearch best nodes, whether they pass or not.
    const double neighbours = hnsw->hnsw.nb_neighbors(0);
    const double visited = std::min(all, hnsw->hnsw.efSearch / share * neighbours / 2);
    return {.visited = visited, .computed = visited, .jumps = true};
  }
  return {.visited = all, .computed = all * share};
}

// Makes room for `count` vectors, so that adding them in parts does not double the memory. Later
// releases hold the codes in a type of their own.
template <typename FlatCodes>
void ReserveCodes(FlatCodes& index, size_t count) {
  if constexpr (requires { index.codes.reserve(size_t{}); }) {
    index.codes.reserve(count * index.code_size);
  }
}

}  // namespace nestrec::faiss_compat
