#include "index/nested_search.h"

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <memory>

#include "index/first_exception.h"
#include "index/float_scan.h"
#include "index/nested_funnel.h"

namespace nestrec {

namespace {

// Scores everything for those that want it, together, whatever their widths.
void ScanPlain(std::span<const std::unique_ptr<Funnel>> funnels) {
  std::vector<Funnel*> plain;
  for (const auto& funnel : funnels) {
    if (funnel->scores_all_items()) plain.push_back(funnel.get());
  }
  if (plain.empty()) return;
  std::stable_sort(plain.begin(), plain.end(), [](const Funnel* a, const Funnel* b) {
    return a->request().query.size() > b->request().query.size();
  });
  std::vector<const NestedCodesRequest*> requests;
  std::vector<TopItems*> best;
  for (Funnel* const funnel : plain) {
    requests.push_back(&funnel->request());
    best.push_back(funnel->best());
  }
  std::vector<int64_t> scored(plain.size());
  // One block's requests have one view, or none (SharesBlock).
  const ReducedView* const view = requests[0]->reduced;
  const bool reduced =
      view != nullptr && std::all_of(requests.begin(), requests.end(), [&](const auto* request) {
        return view->Holds(request->query);
      });
  if (reduced) {
    FloatScan(*view, requests, best, scored);
  } else {
    FloatScan(requests, best, scored);
  }
  for (size_t i = 0; i < plain.size(); ++i) {
    plain[i]->SetScanned(scored[i], reduced ? view : nullptr);
  }
}

// Whether one of them reads codes of all items.
bool PlanAll(std::span<const std::unique_ptr<Funnel>> funnels, const NestedSearchOptions& options) {
  bool scan = false;
  for (size_t from = 0, end = 0; from < funnels.size(); from = end) {
    const NestedCodes& codes = *funnels[from]->request().codes;
    // Those of one width, which are brought into its codes' coordinates together.
    std::vector<std::span<const float>> queries;
    while (end < funnels.size() && funnels[end]->request().codes == &codes) {
      queries.push_back(funnels[end++]->request().query);
    }
    const bool any = options.funnel && !codes.groups().empty() &&
                     std::any_of(funnels.begin() + static_cast<std::ptrdiff_t>(from),
                                 funnels.begin() + static_cast<std::ptrdiff_t>(end),
                                 [](const auto& funnel) { return funnel->request().funnel; });
    std::vector<double> weights;
    if (any) weights = NestedQuery::Weights(codes, queries);
    const size_t each = weights.size() / queries.size();
    for (size_t i = from; i < end; ++i) {
      funnels[i]->Plan(std::span<const double>(weights).subspan((i - from) * each, each));
      scan = scan || funnels[i]->reads_all_items();
    }
  }
  return scan;
}

// Whether a request may join a block of `count` others. Those that score everything share the
// vectors, whatever their widths; those that may read codes share codes, so long as what they write
// down of every item stays in the cache, where it can at all.
bool SharesBlock(const NestedCodesRequest& first, const NestedCodesRequest& next, size_t count,
                 const NestedSearchOptions& options) {
  if (first.reduced != next.reduced) return false;
  if (!options.funnel) return true;
  if (first.funnel != next.funnel) return false;
  if (!first.funnel) return true;
  constexpr int64_t kCacheBytes = int64_t{1} << 20;
  constexpr int64_t kEnoughShare = 8;
  const int64_t each = 2 * static_cast<int64_t>(sizeof(float)) * first.codes->items();
  const bool fits = (static_cast<int64_t>(count) + 1) * each <= kCacheBytes;
  return first.codes == next.codes && (fits || kEnoughShare * each > kCacheBytes);
}

}  // namespace

std::vector<SearchResult> SearchCodes(std::span<const NestedCodesRequest> requests,
                                      const NestedSearchOptions& options, NestedScratch& scratch,
                                      std::span<NestedSearchStats> stats) {
  const size_t count = requests.size();
  std::vector<SearchResult> results(count);
  // Blocks of queries share what they read; each thread has a block at a time.
  constexpr size_t kMostShared = 32;
  const size_t threads = omp_in_parallel() != 0 ? 1 : static_cast<size_t>(omp_get_max_threads());
  const size_t most = std::clamp<size_t>((count + threads - 1) / threads, 1, kMostShared);
  // A thread's blocks use the same memory, one after the other: it stays in the cache.
  if (scratch.queries.size() < threads * most) scratch.queries.resize(threads * most);
  std::vector<size_t> begins;
  for (size_t i = 0; i < count; ++i) {
    if (begins.empty() || i - begins.back() == most ||
        !SharesBlock(requests[begins.back()], requests[i], i - begins.back(), options)) {
      begins.push_back(i);
    }
  }
  const int64_t blocks = static_cast<int64_t>(begins.size());
  begins.push_back(count);
  FirstException first;
#pragma omp parallel for schedule(dynamic) num_threads(static_cast <int>(threads)) if (blocks > 1)
  for (int64_t block = 0; block < blocks; ++block) {
    first.Guard([&] {
      const size_t from = begins[static_cast<size_t>(block)];
      const size_t end = begins[static_cast<size_t>(block) + 1];
      const size_t own = static_cast<size_t>(omp_get_thread_num()) * most;
      std::vector<std::unique_ptr<Funnel>> funnels;
      for (size_t i = from; i < end; ++i) {
        funnels.push_back(std::make_unique<Funnel>(requests[i], options,
                                                   scratch.queries[own + i - from], stats[i]));
      }
      const bool scan = PlanAll(funnels, options);
      const int64_t n = scan ? requests[from].codes->items() : 0;
#pragma omp parallel for schedule(static) if (n >= Funnel::kItemsWorthThreads)
      for (int64_t begin = 0; begin < n; begin += Funnel::kBlock) {
        for (const auto& funnel : funnels) {
          if (funnel->reads_all_items())
            funnel->ScanBlock(begin, std::min(Funnel::kBlock, n - begin));
        }
      }
      ScanPlain(funnels);
      for (size_t i = from; i < end; ++i) results[i] = funnels[i - from]->Finish();
    });
  }
  first.Rethrow();
  return results;
}

}  // namespace nestrec
