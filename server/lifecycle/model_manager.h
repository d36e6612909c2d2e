// The models of a server over time: watches a folder of versions or one file, loads what is new
// beside what serves, has it checked and warmed up, and then lets requests have it. What served
// before goes when its last request has ended.
//
//   NESTREC_ASSIGN_OR_RETURN(auto models, ModelManager::Create({.path = "models/", .load = ...}));
//   models->StartUpdates([&](const Snapshot& next) { return engine.WarmUp(next); });
//   std::shared_ptr<const Snapshot> snapshot = models->For(user_id);
//
// A version that cannot be loaded is refused and serves nobody: what serves goes on. It is tried
// again when its file changes, on Reload, and, where there was no memory for it, when a version
// that drained meanwhile is gone. A folder that cannot be listed, and labels that cannot be read,
// change nothing either. Each is a log line when it happens, and again only when it changes.
//
// Versions are mapped from their files. One whose file loses bytes, or is overwritten by something
// that is no model, is given up (Snapshot::intact): it answers nothing any more, and the newest
// other good version of the folder serves, or what its file becomes. The log says model_lost.
//
// Threads: one, which waits. Loading, preparing and taking down run on threads of their own with a
// lower priority, so that requests go first.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "nestrec/v1/admin.pb.h"
#include "nestrec/v1/model_labels.pb.h"
#include "server/clock.h"
#include "server/lifecycle/model_folder.h"
#include "server/lifecycle/model_labels.h"
#include "server/log.h"
#include "server/mutex.h"
#include "server/snapshot.h"
#include "server/snapshot_source.h"

namespace nestrec {

class ModelManager final : public SnapshotSource {
 public:
  struct Options {
    std::string path;  // a checkpoint, or a folder of them
    // Reads, verifies and checks one version.
    std::function<absl::StatusOr<std::shared_ptr<const Snapshot>>(const std::string& path)> load;
    absl::Duration poll = absl::Seconds(5);  // how often to look
    Log log;
  };
  struct Stats {
    int64_t loaded = 0, refused = 0;  // versions, since the start
    int64_t held = 0;                 // versions in memory
    // Whether a version is refused, or what should serve, by folder and labels, is not what does.
    bool unmet = false;
  };

  // Loads what should serve. Of a folder whose newest versions are refused, the newest good one
  // serves. The error of the only or last candidate where there is none.
  static absl::StatusOr<std::unique_ptr<ModelManager>> Create(Options options);
  ~ModelManager() override;

  std::shared_ptr<const Snapshot> Stable() const override;
  std::shared_ptr<const Snapshot> For(absl::string_view user_id) const override;
  std::shared_ptr<const Snapshot> ShadowFor(const Snapshot& answered) const override;
  // `prepare` is called, on the thread that loads, with each model before any request gets it; an
  // error refuses it.
  void StartUpdates(std::function<absl::Status(const Snapshot&)> prepare) override;
  void StopUpdates() override;

  v1::GetStatusResponse Status() const;
  // Looks now, and waits until that is done. kFailedPrecondition where what should serve was
  // refused or is not there; kDeadlineExceeded when it takes longer than `patience`, and goes on.
  absl::Status Reload(absl::Duration patience);
  // Returns whether the labels are kept in the folder. Errors of CheckModelLabels; kInvalidArgument
  // for a version that is not there; kFailedPrecondition for a path that is no folder, and as
  // Reload.
  absl::StatusOr<bool> SetLabels(const v1::ModelLabels& labels, absl::Duration patience);
  Stats stats() const;

 private:
  struct Version {
    ModelFile file;
    v1::ModelState state = v1::MODEL_STATE_LOADING;
    std::shared_ptr<const Snapshot> snapshot;
    std::string error;
    bool wants_room = false;  // refused because there was no memory for it
    absl::Time available_since;
    absl::Duration load_time;
  };
  struct Routes {
    std::shared_ptr<const Snapshot> stable, canary;  // canary may be null
    double canary_share = 0, shadow_share = 0;
    uint64_t canary_salt = 0;  // by the canary's name
  };

  explicit ModelManager(Options options) : options_(std::move(options)) {}
  void Watch();
  // One look at the folder and what follows from it; what went wrong, for those who wait for it.
  absl::Status Update();
  // Loads a version that is not held. REQUIRES: called by Update.
  absl::Status Load(const ModelFile& file);
  v1::ModelLabels CurrentLabels();
  struct Reaped {
    bool draining = false;  // some are still held
    bool room = false;      // something went, and a version was refused for want of memory
  };
  // Lets go of versions that no request holds any more, and forgets refusals that this may end.
  Reaped Reap();
  // Versions whose files have lost bytes: their files count as others from now on, and are loaded
  // again.
  void DetachLost() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // `file` is damaged: so is what was loaded from it before somebody wrote into it.
  void GiveUpOverwritten(const ModelFile& file);
  // Says `message` once until it changes; empty: all is well.
  void Complain(std::string& said, const std::string& event, const std::string& message) const;
  Version* Find(const ModelFile& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AskAndWait(bool retry_refused, absl::Duration patience);

  const Options options_;
  std::function<absl::Status(const Snapshot&)> prepare_;  // set before the thread starts
  // Of the thread alone.
  v1::ModelLabels last_labels_;
  std::string said_folder_, said_labels_, said_rollout_;

  mutable Mutex mutex_;
  ConditionVariable changed_;
  Routes routes_ ABSL_GUARDED_BY(mutex_);
  v1::ModelLabels labels_ ABSL_GUARDED_BY(mutex_);                 // as they hold
  std::vector<ModelFile> files_ ABSL_GUARDED_BY(mutex_);           // as last listed
  std::vector<Version> versions_ ABSL_GUARDED_BY(mutex_);          // loading, loaded or refused
  std::unique_ptr<v1::ModelLabels> told_ ABSL_GUARDED_BY(mutex_);  // not in the folder; null: none
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool retry_refused_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t asked_ ABSL_GUARDED_BY(mutex_) = 0;     // looks that somebody waits for
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;      // of them
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);  // of the last look

  Mutex join_mutex_;
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace nestrec
