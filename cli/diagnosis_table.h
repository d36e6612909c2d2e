// A model's diagnosis as tables for people and as JSON lines for programs.
//
// Pure functions.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "model/diagnosis.h"

namespace nestrec {

// A table per part: a line per bucket or variation, and for each size Recall@10 and NDCG@10 with
// their ratios to the unmodified run of all users ("-" where that is 0). The note comes last.
std::string FormatDiagnosis(const DiagnosisReport& report);

// The same figures, an object per line and size:
//
//   {"scorer": "model", "split": "test", "masked": "padding", "diagnosis": "history length",
//    "slice": "3-4", "dim": 8, "users": 120, "share": 0.12, "recall@10": ..., "ndcg@10": ...,
//    "recall@10_ratio": ..., "ndcg@10_ratio": ...}
//
// "diagnosis" is one of "history length", "target popularity", "variation". A ratio to 0 is null.
// The note is one object {"diagnosis": "note", "note": "..."}.
std::string DiagnosisJsonLines(const DiagnosisReport& report, absl::string_view split);

}  // namespace nestrec
