// Which model a request runs on. A server may hold more than one: requests ask when they arrive,
// and keep what they got until they end.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/snapshot.h"

namespace nestrec {

class SnapshotSource {
 public:
  virtual ~SnapshotSource() = default;

  // What serves when nothing is said; never null.
  virtual std::shared_ptr<const Snapshot> Stable() const = 0;
  // What serves requests of this user; empty: one that is not known.
  virtual std::shared_ptr<const Snapshot> For(absl::string_view user_id) const = 0;
};

// One model for all.
class OneSnapshot final : public SnapshotSource {
 public:
  explicit OneSnapshot(std::shared_ptr<const Snapshot> snapshot) : snapshot_(std::move(snapshot)) {}

  std::shared_ptr<const Snapshot> Stable() const override { return snapshot_; }
  std::shared_ptr<const Snapshot> For(absl::string_view /*user_id*/) const override {
    return snapshot_;
  }

 private:
  const std::shared_ptr<const Snapshot> snapshot_;
};

}  // namespace nestrec
