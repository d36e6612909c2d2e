#include "model/prepare/shop_words.h"

#include <array>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

constexpr ShopStep kHair[] = {
    {"Shampoos", "Shampoo", "cleans hair and scalp", 8.5},
    {"Conditioners", "Conditioner", "smooths and detangles after washing", 9},
    {"Hair Masks", "Deep Hair Mask", "a weekly treatment for lengths and ends", 14},
    {"Hair Oils", "Finishing Hair Oil", "a few drops for shine", 17},
    {"Styling", "Styling Cream", "holds a style without stiffness", 12},
};
constexpr ShopStep kSkin[] = {
    {"Cleansers", "Facial Cleanser", "takes off the day", 11},
    {"Toners", "Facial Toner", "prepares the skin", 13},
    {"Serums", "Face Serum", "works overnight", 26},
    {"Moisturizers", "Day Moisturizer", "keeps water in", 21},
    {"Eye Creams", "Eye Cream", "for the thin skin around the eyes", 24},
    {"Sunscreens", "Face Sunscreen SPF 50", "the last step of the morning", 19},
};
constexpr ShopStep kNails[] = {
    {"Nail Polish Removers", "Nail Polish Remover", "acetone free", 4.5},
    {"Base Coats", "Ridge Filling Base Coat", "goes on first", 6},
    {"Nail Polish", "Nail Lacquer", "two thin coats", 7.5},
    {"Top Coats", "Quick Dry Top Coat", "seals and shines", 7},
};
constexpr ShopStep kMakeup[] = {
    {"Primers", "Face Primer", "evens out before foundation", 16},
    {"Foundations", "Liquid Foundation", "buildable coverage", 22},
    {"Concealers", "Concealer Stick", "hides what is left", 12},
    {"Blushes", "Powder Blush", "a touch of colour", 13},
    {"Mascaras", "Volume Mascara", "for lashes", 11},
    {"Setting Sprays", "Setting Spray", "keeps it all in place", 15},
};
constexpr ShopStep kShaving[] = {
    {"Pre-Shave Oils", "Pre-Shave Oil", "softens the beard", 10},
    {"Razors", "Safety Razor", "a double edge for a close shave", 24},
    {"Shaving Creams", "Shaving Cream", "rich lather", 9},
    {"Aftershaves", "Aftershave Balm", "calms without sting", 14},
};
constexpr ShopStep kBath[] = {
    {"Bath Salts", "Bath Salts", "for a long soak", 9.5},
    {"Body Washes", "Body Wash", "for the shower", 7},
    {"Body Scrubs", "Body Scrub", "once or twice a week", 12},
    {"Body Lotions", "Body Lotion", "after the bath", 10},
};
constexpr ShopStep kOral[] = {
    {"Toothbrushes", "Soft Bristle Toothbrush", "for gums that bleed easily", 5},
    {"Toothpastes", "Toothpaste", "twice a day", 4.5},
    {"Dental Floss", "Dental Floss", "between the teeth", 3.5},
    {"Mouthwashes", "Mouthwash", "alcohol free", 6},
};
constexpr ShopStep kFragrance[] = {
    {"Eau de Parfum", "Eau de Parfum", "a scent for the evening", 48},
    {"Body Mists", "Body Mist", "a lighter scent for the day", 15},
    {"Scented Candles", "Scented Candle", "the same scent for a room", 18},
};

constexpr ShopDepartment kDepartments[] = {
    {"Hair Care", kHair},  {"Skin Care", kSkin},   {"Nails", kNails},    {"Makeup", kMakeup},
    {"Shaving", kShaving}, {"Bath & Body", kBath}, {"Oral Care", kOral}, {"Fragrance", kFragrance},
};

constexpr ShopLine kLines[] = {
    {"Argan", "dry and damaged"},
    {"Aloe", "sensitive"},
    {"Charcoal", "oily"},
    {"Rose", "mature"},
    {"Oat", "itchy and irritated"},
    {"Tea Tree", "blemished"},
    {"Coconut", "dull"},
    {"Lavender", "tired"},
    {"Mint", "in need of freshness"},
    {"Honey", "chapped"},
    {"Green Tea", "stressed"},
    {"Citrus", "uneven"},
    {"Shea", "very dry"},
    {"Rosemary", "thinning"},
    {"Sea Mineral", "dehydrated"},
    {"Chamomile", "easily reddened"},
};

}  // namespace

std::span<const ShopDepartment> ShopDepartments() { return kDepartments; }

std::span<const ShopLine> ShopLines() { return kLines; }

std::string ShopBrand(int64_t number) {
  constexpr std::array<const char*, 20> kFirst = {"Lu", "Ve", "Ka", "Or", "Si", "Mi", "Da",
                                                  "Fe", "No", "Ta", "Be", "Zu", "Ri", "Ha",
                                                  "Je", "Pa", "Cy", "El", "Wi", "Go"};
  constexpr std::array<const char*, 20> kMiddle = {"mo", "sa", "li",  "ve",  "ra", "do", "ne",
                                                   "ti", "bu", "la",  "ze",  "ki", "fa", "mu",
                                                   "ro", "pe", "shi", "cha", "ny", "go"};
  constexpr std::array<const char*, 20> kLast = {"ra", "ne", "lle", "x",   "do",  "mi", "na",
                                                 "ss", "ta", "ro",  "n",   "lia", "ka", "que",
                                                 "vo", "th", "ri",  "sca", "bel", "zo"};
  // Steps that share no factor with 20 walk through all combinations, the first ones unlike each
  // other.
  const int64_t first = number % 20;
  const int64_t middle = (number / 20 + number * 7) % 20;
  const int64_t last = (number / 400 + number * 3) % 20;
  return absl::StrCat(kFirst[static_cast<size_t>(first)], kMiddle[static_cast<size_t>(middle)],
                      kLast[static_cast<size_t>(last)]);
}

}  // namespace nestrec
