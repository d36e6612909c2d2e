#include "base/guard.h"

#include <gtest/gtest.h>

#include "absl/status/statusor.h"

namespace nestrec {
namespace {

TEST(Guard, TurnsExceptionsIntoStatuses) {
  const auto throwing = [](auto error) {
    return Guard("work", [&]() -> absl::Status { throw error; });
  };
  EXPECT_EQ(throwing(std::bad_alloc()).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(throwing(std::invalid_argument("x")).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status status = throwing(std::runtime_error("first line\nstack trace"));
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "work: first line");
}

TEST(Guard, PassesValuesAndErrorsThrough) {
  EXPECT_EQ(*Guard("work", []() -> absl::StatusOr<int> { return 3; }), 3);
  EXPECT_EQ(Guard("work", []() -> absl::StatusOr<int> { return absl::NotFoundError("x"); })
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace nestrec
