// Early returns for absl::Status and absl::StatusOr.
//
//   NESTREC_RETURN_IF_ERROR(file.Sync());
//   NESTREC_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(path));
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define NESTREC_RETURN_IF_ERROR(expr)      \
  do {                                     \
    absl::Status nestrec_status_ = (expr); \
    if (!nestrec_status_.ok()) {           \
      return nestrec_status_;              \
    }                                      \
  } while (false)

#define NESTREC_CONCAT_INNER_(a, b) a##b
#define NESTREC_CONCAT_(a, b) NESTREC_CONCAT_INNER_(a, b)

#define NESTREC_ASSIGN_OR_RETURN(lhs, expr) \
  NESTREC_ASSIGN_OR_RETURN_IMPL_(NESTREC_CONCAT_(nestrec_statusor_, __LINE__), lhs, expr)

// A declaration cannot stand in parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define NESTREC_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expr) \
  auto statusor = (expr);                                   \
  if (!statusor.ok()) {                                     \
    return std::move(statusor).status();                    \
  }                                                         \
  lhs = std::move(statusor).value()
// NOLINTEND(bugprone-macro-parentheses)
