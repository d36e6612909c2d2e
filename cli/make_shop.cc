// nestrec make-shop: writes the raw files of a made-up shop.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "model/prepare/synthetic_shop.h"

namespace nestrec {
namespace {

struct Flags {
  ShopOptions shop;
  std::string out;
  bool overwrite = false;
};

absl::Status Run(const Flags& flags) {
  NESTREC_RETURN_IF_ERROR(UsageError(CheckShopOptions(flags.shop)));
  for (const char* name : {"/events.csv", "/catalogue.jsonl"}) {
    if (!flags.overwrite && FileExists(flags.out + name)) {
      return absl::AlreadyExistsError(absl::StrCat(
          flags.out, name, " exists; choose another --out, or replace it with --overwrite"));
    }
  }
  NESTREC_ASSIGN_OR_RETURN(const SyntheticShop shop, MakeSyntheticShop(flags.shop));
  NESTREC_RETURN_IF_ERROR(WriteSyntheticShop(shop, flags.out));
  std::printf("%s: %zu events of %lld users in events.csv, %zu items in catalogue.jsonl\n",
              flags.out.c_str(), shop.events.size(), static_cast<long long>(flags.shop.users),
              shop.items.size());
  std::printf(
      "next: nestrec prepare --events %s/events.csv --catalogue %s/catalogue.jsonl --out <data "
      "folder>\n",
      flags.out.c_str(), flags.out.c_str());
  return absl::OkStatus();
}

}  // namespace

void AddMakeShopCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "make-shop", "Write events and a catalogue of a made-up shop, to try things out");
  command->add_option("--out", flags->out, "Folder for events.csv and catalogue.jsonl")
      ->required()
      ->type_name("DIR");
  command->add_option("--users", flags->shop.users, "Number of users")->capture_default_str();
  command->add_option("--items", flags->shop.items, "Number of items")->capture_default_str();
  command->add_option("--seed", flags->shop.seed, "The same seed makes the same shop")
      ->check(WholeNumber(0, UINT64_MAX))
      ->capture_default_str();
  command->add_flag("--overwrite", flags->overwrite, "Replace the files if they exist");
  command->callback([flags, selected] { *selected = [flags] { return Run(*flags); }; });
}

}  // namespace nestrec
