// Which model a request runs on. A server may hold more than one: requests ask when they arrive,
// and keep what they got until they end.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
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
  // What an answer of `answered` is to be compared with, off the request's path; mostly null. Draws
  // anew each time.
  virtual std::shared_ptr<const Snapshot> ShadowFor(const Snapshot& /*answered*/) const {
    return nullptr;
  }

  // From now on models may change; `prepare` is called with each new one before any request gets
  // it, and its error keeps the model from serving.
  virtual void StartUpdates(std::function<absl::Status(const Snapshot&)> /*prepare*/) {}
  // Returns when nothing changes any more. May be called again.
  virtual void StopUpdates() {}
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
