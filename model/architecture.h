// What a nested model is built of, apart from its widths: a checkpoint says it, the network trains
// it and the encoder computes it.
//
// Thread safety: plain values and pure functions.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/nested_sizes.h"

namespace nestrec {

// What moves information along a history inside a block. All of them are nested: columns [0, s) of
// the output depend on columns [0, s) of the input alone.
enum class Mixer {
  kLru,        // linear recurrent unit, the published model's (arXiv 2409.16627)
  kGru,        // gated recurrent unit (arXiv 1406.1078)
  kAttention,  // causal multi-head self-attention (arXiv 1706.03762) with learned positions
};

enum class FeedForward {
  kGated,  // W2(SiLU(Wg u) * W1 u), the published model's
  kRelu,   // W2(ReLU(W1 u)), SASRec's (arXiv 1808.09781)
};

struct Architecture {
  static constexpr int kMaxHeadWidth = 65536;

  Mixer mixer = Mixer::kLru;
  int head_width = 64;  // of kAttention: see HeadWidth
  FeedForward feed_forward = FeedForward::kGated;
  // A layer norm after the last block, each level on its own.
  bool final_norm = false;
  // Item embeddings are multiplied by it where they enter the first block; never as scored items.
  float input_scale = 1.0f;

  // Whether the model adds a learned vector to every item by its place in the history.
  bool has_positions() const { return mixer == Mixer::kAttention; }
  // Whether one more item of a history costs the same however long it is, on a state of fixed size:
  // a recurrence keeps h per block, attention looks at every item of the history again.
  bool constant_time_step() const { return mixer != Mixer::kAttention; }

  friend bool operator==(const Architecture&, const Architecture&) = default;
};

// "lru", "gru", "attention".
absl::string_view MixerName(Mixer mixer);
// kInvalidArgument, naming the choices, for another text.
absl::StatusOr<Mixer> ParseMixer(absl::string_view text);

// "gated", "relu".
absl::string_view FeedForwardName(FeedForward feed_forward);
absl::StatusOr<FeedForward> ParseFeedForward(absl::string_view text);

// For people: "attention, heads of 64, final norm": the mixer, and what else is not as published.
std::string Describe(const Architecture& architecture);
// What constant_time_step says, in words.
absl::string_view DescribeStep(const Architecture& architecture);

// The columns of one attention head in a level of `level_width` columns. Heads lie inside levels,
// so that a prefix of levels has whole heads, and all of a level are equally wide: the narrowest
// divisor of level_width that is at least `head_width`, or the whole level where it is narrower.
int HeadWidth(int level_width, int head_width);

}  // namespace nestrec
