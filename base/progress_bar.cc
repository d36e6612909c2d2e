#include "base/progress_bar.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace nestrec {
namespace {

constexpr int kBarWidth = 24;
constexpr absl::Duration kRedrawInterval = absl::Milliseconds(100);

}  // namespace

std::string FormatClock(absl::Duration duration) {
  const int64_t seconds =
      std::max<int64_t>(0, absl::ToInt64Seconds(duration + absl::Milliseconds(500)));
  if (seconds < 3600) return absl::StrFormat("%02d:%02d", seconds / 60, seconds % 60);
  return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

ProgressBar::ProgressBar(std::FILE* stream)
    : stream_(stream), is_terminal_(isatty(fileno(stream)) == 1) {}

void ProgressBar::Start(std::string title, int64_t total, std::string eta) {
  title_ = std::move(title);
  eta_ = std::move(eta);
  total_ = std::max<int64_t>(1, total);
  started_ = absl::Now();
  last_drawn_ = absl::InfinitePast();
}

void ProgressBar::Update(int64_t done, absl::string_view detail) {
  if (!is_terminal_) return;
  const absl::Time now = absl::Now();
  if (now - last_drawn_ < kRedrawInterval && done < total_) return;
  last_drawn_ = now;
  const double share =
      std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
  const int filled = static_cast<int>(share * kBarWidth);
  std::string bar(static_cast<size_t>(filled), '=');
  if (filled < kBarWidth) bar += '>';
  bar.resize(kBarWidth, ' ');
  const std::string eta =
      share > 0 ? FormatClock((now - started_) * ((1.0 - share) / share)) : "--:--";
  absl::FPrintF(stream_, "\r\033[K%s  [%s] %3.0f%%  %s  %s %s", title_, bar, share * 100,
                std::string(detail), eta_, eta);
  std::fflush(stream_);
  drawn_ = true;
}

void ProgressBar::Clear() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stream_);
  std::fflush(stream_);
  drawn_ = false;
}

}  // namespace nestrec
