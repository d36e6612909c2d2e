#include "model/architecture.h"

#include "absl/strings/str_cat.h"

namespace nestrec {

absl::string_view MixerName(Mixer mixer) {
  switch (mixer) {
    case Mixer::kLru:
      return "lru";
    case Mixer::kGru:
      return "gru";
    case Mixer::kAttention:
      return "attention";
  }
  return "";
}

absl::StatusOr<Mixer> ParseMixer(absl::string_view text) {
  for (const Mixer mixer : {Mixer::kLru, Mixer::kGru, Mixer::kAttention}) {
    if (text == MixerName(mixer)) return mixer;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is unknown; use lru, gru or attention"));
}

absl::string_view FeedForwardName(FeedForward feed_forward) {
  return feed_forward == FeedForward::kGated ? "gated" : "relu";
}

absl::StatusOr<FeedForward> ParseFeedForward(absl::string_view text) {
  for (const FeedForward kind : {FeedForward::kGated, FeedForward::kRelu}) {
    if (text == FeedForwardName(kind)) return kind;
  }
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is unknown; use gated or relu"));
}

std::string Describe(const Architecture& architecture) {
  std::string text(MixerName(architecture.mixer));
  if (architecture.mixer == Mixer::kAttention) {
    absl::StrAppend(&text, ", heads of ", architecture.head_width);
  }
  if (architecture.feed_forward != FeedForward::kGated) {
    absl::StrAppend(&text, ", ", FeedForwardName(architecture.feed_forward), " feed-forward");
  }
  if (architecture.final_norm) absl::StrAppend(&text, ", final norm");
  if (architecture.input_scale != 1.0f) {
    absl::StrAppend(&text, ", input scale ", architecture.input_scale);
  }
  return text;
}

absl::string_view DescribeStep(const Architecture& architecture) {
  return architecture.constant_time_step()
             ? "one more item costs constant time, on a state of constant size"
             : "one more item costs time and memory that grow with the history";
}

int HeadWidth(int level_width, int head_width) {
  for (int width = head_width; width < level_width; ++width) {
    if (level_width % width == 0) return width;
  }
  return level_width;
}

}  // namespace nestrec
