#include "model/prepare/synthetic_shop.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "model/prepare/shop_words.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

constexpr int64_t kLinesPerBrand = 4;
constexpr double kPopularityExponent = 0.7;  // of Zipf's law
constexpr double kWhim = 0.10;               // events that follow no routine
constexpr double kTakesTurns = 0.5;          // users with two routines at a time
constexpr double kSameBrandAndLine = 0.6;    // next routine
constexpr double kSameBrand = 0.2;
constexpr int64_t kShortestUser = 5;
constexpr int64_t kLongestUser = 16;

// A brand's line in one department: its items in the order of use.
struct Routine {
  int64_t department;
  int64_t brand;
  int64_t line;
  std::vector<int64_t> items;
};

// Draws numbers with given weights.
class WeightedChoice {
 public:
  explicit WeightedChoice(std::vector<double> weights) : sums_(std::move(weights)) {
    for (size_t i = 1; i < sums_.size(); ++i) sums_[i] += sums_[i - 1];
  }
  int64_t Draw(Random& random) const {
    const double at = random.Uniform() * sums_.back();
    const int64_t found = std::upper_bound(sums_.begin(), sums_.end(), at) - sums_.begin();
    return std::min(found, static_cast<int64_t>(sums_.size()) - 1);
  }

 private:
  std::vector<double> sums_;
};

struct Shop {
  SyntheticShop out;
  std::vector<Routine> routines;
  std::vector<double> popularity;  // of routines
  std::vector<std::vector<int64_t>> routines_of_department;
  std::vector<std::vector<int64_t>> routines_of_brand;
};

ShopItem ComposeItem(const Routine& routine, int step, Random& random) {
  const ShopDepartment& department = ShopDepartments()[static_cast<size_t>(routine.department)];
  const ShopStep& what = department.steps[static_cast<size_t>(step)];
  const ShopLine& line = ShopLines()[static_cast<size_t>(routine.line)];
  constexpr const char* kSizes[] = {"50 ml",  "100 ml",    "150 ml",     "200 ml",
                                    "250 ml", "Twin Pack", "Travel Size"};
  ShopItem item;
  item.brand = ShopBrand(routine.brand);
  item.title = absl::StrCat(item.brand, " ", line.name, " ", what.product, ", ",
                            kSizes[random.Index(std::size(kSizes))]);
  item.description = absl::StrCat(what.product, " with ", line.name, ", made for ", line.concern,
                                  " types: ", what.purpose, ".");
  item.department = department.name;
  item.category = what.category;
  item.step = step;
  const double price = what.base_price * random.Uniform(0.7, 1.5);
  if (random.Uniform() > 0.05) item.price_cents = static_cast<int64_t>(price * 2) * 50 + 49;
  return item;
}

// Routines until there are `wanted` items; the last one may be shorter.
void StockShop(int64_t wanted, Random& random, Shop& shop) {
  const std::span<const ShopDepartment> departments = ShopDepartments();
  const int64_t department_count = static_cast<int64_t>(departments.size());
  const int64_t line_count = static_cast<int64_t>(ShopLines().size());
  int64_t steps = 0;
  for (const ShopDepartment& department : departments)
    steps += static_cast<int64_t>(department.steps.size());
  const int64_t brands_per_department =
      (wanted + steps * kLinesPerBrand - 1) / (steps * kLinesPerBrand);
  const int64_t brands = std::min(brands_per_department * 2 + 1, kMaxShopBrands);
  shop.routines_of_department.resize(departments.size());
  shop.routines_of_brand.resize(static_cast<size_t>(brands));
  for (int64_t n = 0; static_cast<int64_t>(shop.out.items.size()) < wanted; ++n) {
    const int64_t department = n % department_count;
    const int64_t slot = n / department_count;  // brand and line within the department
    const int64_t brand = (slot / kLinesPerBrand + department * brands_per_department / 3) % brands;
    const int64_t line = (brand * 5 + slot % kLinesPerBrand * 3) % line_count;
    Routine routine{.department = department, .brand = brand, .line = line, .items = {}};
    const int64_t number = static_cast<int64_t>(shop.routines.size());
    for (size_t step = 0; step < departments[static_cast<size_t>(department)].steps.size();
         ++step) {
      if (static_cast<int64_t>(shop.out.items.size()) == wanted) break;
      ShopItem item = ComposeItem(routine, static_cast<int>(step), random);
      item.routine = number;
      routine.items.push_back(static_cast<int64_t>(shop.out.items.size()));
      shop.out.items.push_back(std::move(item));
    }
    shop.routines_of_department[static_cast<size_t>(department)].push_back(number);
    shop.routines_of_brand[static_cast<size_t>(brand)].push_back(number);
    shop.routines.push_back(std::move(routine));
  }
  std::vector<int64_t> ranks(shop.routines.size());
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i] = static_cast<int64_t>(i);
  random.Shuffle(std::span<int64_t>(ranks));
  for (const int64_t rank : ranks) {
    shop.popularity.push_back(std::pow(static_cast<double>(rank + 1), -kPopularityExponent));
  }
  for (size_t i = 0; i < shop.out.items.size(); ++i)
    shop.out.items[i].id = absl::StrFormat("N%06d", i + 1);
}

// One user's walk through the shop.
class Shopper {
 public:
  Shopper(const Shop& shop, const WeightedChoice& popular, Random& random)
      : shop_(shop), popular_(popular), random_(random) {
    for (size_t d = 0; d < shop.routines_of_department.size(); ++d) {
      liking_.push_back(std::exp(1.5 * random.Normal()));
    }
  }

  std::vector<int64_t> Walk(int64_t length) {
    std::vector<Place> places(random_.Uniform() < kTakesTurns ? 2 : 1);
    for (Place& place : places) place = {.routine = Start()};
    for (int64_t turn = 0; static_cast<int64_t>(items_.size()) < length && turn < 4 * length;
         ++turn) {
      if (random_.Uniform() < kWhim) {
        const Routine& routine = RoutineAt(popular_.Draw(random_));
        Take(routine.items[static_cast<size_t>(
            random_.Index(static_cast<int64_t>(routine.items.size())))]);
      }
      Place& place = places[static_cast<size_t>(turn) % places.size()];
      if (place.step == RoutineAt(place.routine).items.size())
        place = {.routine = After(RoutineAt(place.routine))};
      Take(RoutineAt(place.routine).items[place.step++]);
    }
    return std::move(items_);
  }

 private:
  struct Place {
    int64_t routine = 0;
    size_t step = 0;
  };

  const Routine& RoutineAt(int64_t number) const {
    return shop_.routines[static_cast<size_t>(number)];
  }

  void Take(int64_t item) {
    if (taken_.insert(item).second) items_.push_back(item);
  }

  // One of `candidates`, by popularity and liking; nothing when the user has been through all of
  // them.
  std::optional<int64_t> Choose(std::span<const int64_t> candidates) {
    std::vector<int64_t> open;
    std::vector<double> weights;
    for (const int64_t number : candidates) {
      const Routine& routine = RoutineAt(number);
      if (started_.contains(number)) continue;
      open.push_back(number);
      weights.push_back(shop_.popularity[static_cast<size_t>(number)] *
                        liking_[static_cast<size_t>(routine.department)]);
    }
    if (open.empty()) return std::nullopt;
    const int64_t chosen =
        open[static_cast<size_t>(WeightedChoice(std::move(weights)).Draw(random_))];
    started_.insert(chosen);
    return chosen;
  }

  int64_t Start() {
    const int64_t department = WeightedChoice(liking_).Draw(random_);
    const auto chosen = Choose(shop_.routines_of_department[static_cast<size_t>(department)]);
    return chosen.has_value() ? *chosen : popular_.Draw(random_);
  }

  // The routine that follows: the same brand and line elsewhere, the same brand, or anything.
  int64_t After(const Routine& last) {
    const double mood = random_.Uniform();
    if (mood < kSameBrandAndLine + kSameBrand) {
      std::vector<int64_t> candidates;
      for (const int64_t number : shop_.routines_of_brand[static_cast<size_t>(last.brand)]) {
        if (mood >= kSameBrandAndLine || RoutineAt(number).line == last.line)
          candidates.push_back(number);
      }
      if (const auto chosen = Choose(candidates)) return *chosen;
    }
    return Start();
  }

  const Shop& shop_;
  const WeightedChoice& popular_;
  Random& random_;
  std::vector<double> liking_;  // of departments
  absl::flat_hash_set<int64_t> started_;
  absl::flat_hash_set<int64_t> taken_;
  std::vector<int64_t> items_;
};

// Minutes to weeks between events, over about two years.
void AddUserEvents(int64_t user, std::span<const int64_t> items, Random& random,
                   std::vector<ShopEvent>& events) {
  constexpr int64_t kOpening = 1672531200;  // 2023-01-01
  constexpr int64_t kDay = 86400;
  int64_t time = kOpening + random.Index(600 * kDay);
  for (const int64_t item : items) {
    const double mood = random.Uniform();
    const int rating = mood < 0.55 ? 5 : mood < 0.8 ? 4 : mood < 0.9 ? 3 : mood < 0.95 ? 2 : 1;
    events.push_back({.user = user, .item = item, .timestamp = time, .rating = rating});
    time += 60 + static_cast<int64_t>(-std::log(1 - random.Uniform()) * 6 * kDay);
  }
}

}  // namespace

absl::Status CheckShopOptions(const ShopOptions& options) {
  constexpr int64_t kMost = 10'000'000;
  if (options.users < 10 || options.users > kMost) {
    return absl::InvalidArgumentError(
        absl::StrCat("--users: ", options.users, " is outside 10 to ", kMost));
  }
  if (options.items < 20 || options.items > kMost) {
    return absl::InvalidArgumentError(
        absl::StrCat("--items: ", options.items, " is outside 20 to ", kMost));
  }
  return absl::OkStatus();
}

absl::StatusOr<SyntheticShop> MakeSyntheticShop(const ShopOptions& options) {
  NESTREC_RETURN_IF_ERROR(CheckShopOptions(options));
  Shop shop;
  Random stock(options.seed, 0);
  StockShop(options.items, stock, shop);
  const WeightedChoice popular(shop.popularity);
  for (int64_t user = 0; user < options.users; ++user) {
    Random random(options.seed, static_cast<uint64_t>(user) + 1);
    // Most users are short: the smaller of two draws.
    const int64_t spread = kLongestUser - kShortestUser + 1;
    const int64_t length = kShortestUser + std::min(random.Index(spread), random.Index(spread));
    Shopper shopper(shop, popular, random);
    AddUserEvents(user, shopper.Walk(length), random, shop.out.events);
  }
  std::stable_sort(
      shop.out.events.begin(), shop.out.events.end(),
      [](const ShopEvent& a, const ShopEvent& b) { return a.timestamp < b.timestamp; });
  return std::move(shop.out);
}

absl::Status WriteSyntheticShop(const SyntheticShop& shop, const std::string& folder) {
  NESTREC_ASSIGN_OR_RETURN(NewFolders folders, NewFolders::Create(folder));
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> catalogue,
                           AtomicFileWriter::Create(folder + "/catalogue.jsonl"));
  for (const ShopItem& item : shop.items) {
    nlohmann::ordered_json record = {
        {"item_id", item.id}, {"title", item.title}, {"brand", item.brand}};
    record["categories"] = {item.department, item.category};
    record["price"] = nullptr;
    if (item.price_cents > 0) record["price"] = static_cast<double>(item.price_cents) / 100;
    record["description"] = item.description;
    NESTREC_RETURN_IF_ERROR(catalogue->Write(record.dump() + "\n"));
  }
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> events,
                           AtomicFileWriter::Create(folder + "/events.csv"));
  NESTREC_RETURN_IF_ERROR(events->Write("user_id,item_id,timestamp,rating\n"));
  for (const ShopEvent& event : shop.events) {
    NESTREC_RETURN_IF_ERROR(events->Write(absl::StrFormat(
        "u%05d,%s,%d,%d\n", event.user + 1, shop.items[static_cast<size_t>(event.item)].id,
        event.timestamp, event.rating)));
  }
  // Both are written before the first one takes its name.
  NESTREC_RETURN_IF_ERROR(catalogue->Flush());
  NESTREC_RETURN_IF_ERROR(events->Flush());
  NESTREC_RETURN_IF_ERROR(catalogue->Commit());
  NESTREC_RETURN_IF_ERROR(events->Commit());
  folders.Keep();
  return absl::OkStatus();
}

}  // namespace nestrec
