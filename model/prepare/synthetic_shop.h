// A small made-up shop for trying things out: a catalogue with titles, brands, categories and
// prices, and users with habits that a sequence model can learn from the text, and that popularity
// cannot.
//
// How users behave. A department has a routine (shampoo, conditioner, mask, oil, styling); a brand
// has product lines (Aloe, Argan, ...) that run through all of its departments. A user follows a
// routine, step after step, in one brand and line. When it ends, the user mostly takes the same
// brand and line to another department, else another line or brand. About half of the users follow
// two routines in turns, so their next item continues the one before the last. Brands and lines are
// unevenly popular (Zipf), every user likes some departments more, and one event in ten is a whim:
// a popular item of no connection. No user takes an item twice.
//
// Pure function of the options: the same seed gives the same bytes on every platform.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nestrec {

struct ShopOptions {
  int64_t users = 3000;
  int64_t items = 1000;
  uint64_t seed = 1;
};

struct ShopItem {
  std::string id;
  std::string title;
  std::string brand;
  std::string description;
  std::string department;
  std::string category;
  int64_t price_cents = 0;  // 0: not known
  int64_t routine = 0;      // of which brand, line and department
  int step = 0;             // in that routine
};

struct ShopEvent {
  int64_t user;
  int64_t item;       // in SyntheticShop::items
  int64_t timestamp;  // seconds since 1970
  int rating;         // 1 to 5
};

struct SyntheticShop {
  std::vector<ShopItem> items;
  std::vector<ShopEvent> events;  // in the order of time
};

// kInvalidArgument, naming the flag, for fewer than 10 users or 20 items, or more than 10 million.
absl::Status CheckShopOptions(const ShopOptions& options);

// Errors of CheckShopOptions.
absl::StatusOr<SyntheticShop> MakeSyntheticShop(const ShopOptions& options);

// Writes events.csv (user_id,item_id,timestamp,rating) and catalogue.jsonl, the input of Prepare.
// Errors of base/file.h; folders that it made are gone then, and neither file is new.
absl::Status WriteSyntheticShop(const SyntheticShop& shop, const std::string& folder);

}  // namespace nestrec
