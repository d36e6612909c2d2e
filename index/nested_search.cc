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

// Scores everything for those that want it, together.
void ScanPlain(std::span<const std::unique_ptr<Funnel>> funnels) {
  std::vector<Funnel*> plain;
  std::vector<const NestedCodesRequest*> requests;
  std::vector<TopItems*> best;
  for (const auto& funnel : funnels) {
    if (!funnel->scores_all_items()) continue;
    plain.push_back(funnel.get());
    requests.push_back(&funnel->request());
    best.push_back(funnel->best());
  }
  if (plain.empty()) return;
  std::vector<int64_t> scored(plain.size());
  FloatScan(requests, best, scored);
  for (size_t i = 0; i < plain.size(); ++i) plain[i]->SetScanned(scored[i]);
}

}  // namespace

std::vector<SearchResult> SearchCodes(std::span<const NestedCodesRequest> requests,
                                      const NestedSearchOptions& options, NestedScratch& scratch,
                                      std::span<NestedSearchStats> stats) {
  const size_t count = requests.size();
  if (scratch.queries.size() < count) scratch.queries.resize(count);
  std::vector<SearchResult> results(count);
  // Blocks of queries share what they read; each thread has a block at a time.
  constexpr size_t kMostShared = 32;
  const size_t threads = omp_in_parallel() != 0 ? 1 : static_cast<size_t>(omp_get_max_threads());
  const size_t most = std::clamp<size_t>((count + threads - 1) / threads, 1, kMostShared);
  std::vector<size_t> begins;
  for (size_t i = 0; i < count; ++i) {
    if (begins.empty() || i - begins.back() == most ||
        requests[i].codes != requests[begins.back()].codes) {
      begins.push_back(i);
    }
  }
  const int64_t blocks = static_cast<int64_t>(begins.size());
  begins.push_back(count);
  FirstException first;
#pragma omp parallel for schedule(dynamic) if (blocks > 1)
  for (int64_t block = 0; block < blocks; ++block) {
    first.Guard([&] {
      const size_t from = begins[static_cast<size_t>(block)];
      const size_t end = begins[static_cast<size_t>(block) + 1];
      const NestedCodes& codes = *requests[from].codes;
      std::vector<double> weights;
      if (options.funnel && !codes.groups().empty()) {
        std::vector<std::span<const float>> queries;
        for (size_t i = from; i < end; ++i) queries.push_back(requests[i].query);
        weights = NestedQuery::Weights(codes, queries);
      }
      const size_t each = weights.size() / (end - from);
      std::vector<std::unique_ptr<Funnel>> funnels;
      bool scan = false;
      for (size_t i = from; i < end; ++i) {
        funnels.push_back(
            std::make_unique<Funnel>(requests[i], options, scratch.queries[i], stats[i]));
        funnels.back()->Plan(std::span<const double>(weights).subspan((i - from) * each, each));
        scan = scan || funnels.back()->reads_all_items();
      }
      const int64_t n = scan ? codes.items() : 0;
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
