// The folder that `prepare` writes: whether it may, and what an earlier run left in it.
//
// Errors of base/file.h. Thread safety: independent folders may be handled at the same time.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace nestrec {

// Makes `folder` ready to be written to. kAlreadyExists when it is not empty, unless `overwrite`;
// kInvalidArgument when it is a file.
absl::Status OpenOutputFolder(const std::string& folder, bool overwrite);

// Removes the report, the interactions, the text encoder and all features (.npy): features of other
// items must not stay beside new ones. Other files stay.
absl::Status RemoveOldData(const std::string& folder);

}  // namespace nestrec
