// A folder of its own for one test, removed at the end.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"

namespace nestrec {

class TempFolder {
 public:
  TempFolder() {
    static std::atomic<int> count{0};  // any order will do: only uniqueness matters
    path_ = absl::StrCat(::testing::TempDir(), "/nestrec_test_", getpid(), "_", count++);
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return absl::StrCat(path_, "/", name); }

 private:
  std::string path_;
};

}  // namespace nestrec
