// Keeps exceptions inside a module: libtorch, FAISS and the standard library throw, nestrec's
// interfaces return absl::Status. Every call into a throwing library goes through Guard.
//
//   absl::Status status = Guard("train step", [&]() -> absl::Status { ...; return absl::OkStatus();
//   }); absl::StatusOr<int> n = Guard("count", [&]() -> absl::StatusOr<int> { return Count(); });
//
// std::bad_alloc becomes kResourceExhausted, std::invalid_argument kInvalidArgument, everything
// else kInternal; the message is "<what>: <exception's text>", its first line only (libtorch
// appends a stack trace).
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nestrec {

template <typename Function>
auto Guard(absl::string_view what, Function&& function) -> decltype(function()) {
  const auto message = [&what](const std::exception& error) {
    const absl::string_view text = error.what();
    return absl::StrCat(what, ": ", text.substr(0, text.find('\n')));
  };
  try {
    return std::forward<Function>(function)();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": out of memory"));
  } catch (const std::invalid_argument& error) {
    return absl::InvalidArgumentError(message(error));
  } catch (const std::exception& error) {
    return absl::InternalError(message(error));
  }
}

}  // namespace nestrec
