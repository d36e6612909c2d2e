// The words of which the synthetic shop composes its catalogue (synthetic_shop.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace nestrec {

// One step of a department's routine: what people use, in order.
struct ShopStep {
  const char* category;  // "Shampoos"
  const char* product;   // "Shampoo", as it stands in titles
  const char* purpose;   // for descriptions
  double base_price;
};

struct ShopDepartment {
  const char* name;
  std::span<const ShopStep> steps;
};

// What a product line is made with, and what it is for.
struct ShopLine {
  const char* name;     // "Argan", as it stands in titles
  const char* concern;  // "dry and damaged"
};

std::span<const ShopDepartment> ShopDepartments();
std::span<const ShopLine> ShopLines();
// "Lumora", "Vesane", ...: a different name for every number below 20 * 20 * 20.
std::string ShopBrand(int64_t number);
inline constexpr int64_t kMaxShopBrands = 8000;

}  // namespace nestrec
