// One line on a terminal that says how far a long task is:
//
//   epoch 3/20  [=========>          ]  47%  loss 6.1043  21.4k positions/s  epoch's eta 00:42
//
// On a terminal the line is redrawn in place, at most ten times a second; elsewhere (a file, CI)
// nothing is printed but what the caller prints itself, so logs stay readable.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nestrec {

class ProgressBar {
 public:
  // Draws on `stream` (not owned) if it is a terminal.
  explicit ProgressBar(std::FILE* stream);
  ~ProgressBar() { Clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Starts a task of `total` units; the time to go is estimated from here on, and named `eta`.
  void Start(std::string title, int64_t total, std::string eta = "eta");
  // Redraws with `done` units done and `detail` behind the bar.
  void Update(int64_t done, absl::string_view detail);
  // Removes the line, so that something else can be printed.
  void Clear();

 private:
  std::FILE* stream_;
  bool is_terminal_;
  bool drawn_ = false;
  std::string title_;
  std::string eta_;
  int64_t total_ = 0;
  absl::Time started_;
  absl::Time last_drawn_;
};

// "00:42", "12:05", "3:07:55"
std::string FormatClock(absl::Duration duration);

}  // namespace nestrec
