#include "server/lifecycle/model_manager.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "server/proto_time.h"
#include "server/sampling.h"

namespace nestrec {
namespace {

// How often to see whether the last request of a model has ended.
constexpr auto kReapEvery = std::chrono::milliseconds(100);
// A thread's priority while it loads: below those that answer requests.
constexpr int kLoadingNice = 10;
constexpr uint64_t kShadow = SaltOf("shadow");

// The users of a rollout are others than those of the one before.
uint64_t CanarySalt(absl::string_view name) { return SaltOf(absl::StrCat("canary ", name)); }

// A number that differs from call to call and is spread evenly: a request without a user belongs to
// no share for good.
uint64_t NextDraw() {
  static std::atomic<uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed);
}

// Does `work`, which throws nothing, behind all that answers requests.
void InBackground(absl::FunctionRef<void()> work) {
  std::thread([&] {
    // Linux keeps a priority per thread, and new threads take their maker's. Without it the work is
    // only less polite.
    setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kLoadingNice);
    work();
  }).join();
}

// Whether these are one file, into which somebody has written in between.
bool SameFileRewritten(const FileStamp& a, const FileStamp& b) {
  return a.device == b.device && a.inode == b.inode &&
         (a.bytes != b.bytes || a.modified_ns != b.modified_ns);
}

// Whether that has happened since `file` was listed. One that has gone or was replaced has not: its
// bytes are mapped.
bool Overwritten(const ModelFile& file) {
  const absl::StatusOr<std::vector<ModelFile>> now = ListModels(file.path);
  return now.ok() && SameFileRewritten(file.stamp, now->front().stamp);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelManager>> ModelManager::Create(Options options) {
  std::unique_ptr<ModelManager> manager(new ModelManager(std::move(options)));
  // Nobody waits for requests yet: all threads may work.
  const absl::Status status = manager->Update();
  if (manager->Stable() == nullptr) {
    return status.ok() ? absl::InternalError(
                             absl::StrCat("no model of ", manager->options_.path, " serves"))
                       : status;
  }
  return manager;
}

ModelManager::~ModelManager() { StopUpdates(); }

std::shared_ptr<const Snapshot> ModelManager::Stable() const {
  const MutexLock lock(mutex_);
  return routes_.stable;
}

std::shared_ptr<const Snapshot> ModelManager::For(absl::string_view user_id) const {
  const MutexLock lock(mutex_);
  if (routes_.canary == nullptr || routes_.canary_share <= 0) return routes_.stable;
  const double place = user_id.empty() ? SampleOf(routes_.canary_salt, NextDraw())
                                       : SampleOf(routes_.canary_salt, user_id);
  return place < routes_.canary_share ? routes_.canary : routes_.stable;
}

std::shared_ptr<const Snapshot> ModelManager::ShadowFor(const Snapshot& answered) const {
  const MutexLock lock(mutex_);
  if (routes_.canary == nullptr || routes_.shadow_share <= 0 || routes_.stable.get() != &answered ||
      SampleOf(kShadow, NextDraw()) >= routes_.shadow_share) {
    return nullptr;
  }
  return routes_.canary;
}

void ModelManager::StartUpdates(std::function<absl::Status(const Snapshot&)> prepare) {
  const MutexLock lock(join_mutex_);
  if (thread_.joinable()) return;
  prepare_ = std::move(prepare);
  thread_ = std::thread([this] { Watch(); });
}

void ModelManager::StopUpdates() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  const MutexLock lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void ModelManager::Watch() {
  bool draining = false;
  auto next_look = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(options_.poll);
  while (true) {
    int64_t asked = 0;
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && asked_ == done_) {
        const auto now = std::chrono::steady_clock::now();
        if (now >= next_look) break;
        changed_.WaitUntil(mutex_, draining ? std::min(next_look, now + kReapEvery) : next_look);
        if (draining) break;
      }
      if (stopping_) break;
      asked = asked_;
      if (retry_refused_) {
        retry_refused_ = false;
        std::erase_if(versions_, [](const Version& version) {
          return version.state == v1::MODEL_STATE_REFUSED;
        });
      }
    }
    const bool look = asked != done_ || std::chrono::steady_clock::now() >= next_look;
    if (look) {
      absl::Status outcome = Guard("looking for models", [&] { return Update(); });
      next_look = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(options_.poll);
      const MutexLock lock(mutex_);
      stats_.unmet = !outcome.ok();
      outcome_ = std::move(outcome);
      done_ = asked;
    }
    const Reaped reaped = Reap();
    draining = reaped.draining;
    if (reaped.room) next_look = std::chrono::steady_clock::now();
    changed_.NotifyAll();
  }
  const MutexLock lock(mutex_);
  outcome_ = absl::UnavailableError("the server is shutting down");
  done_ = asked_;
  changed_.NotifyAll();
}

v1::ModelLabels ModelManager::CurrentLabels() {
  {
    const MutexLock lock(mutex_);
    if (told_ != nullptr) return *told_;
  }
  if (!IsFolder(options_.path)) return {};
  absl::StatusOr<v1::ModelLabels> labels = ReadModelLabels(options_.path);
  Complain(said_labels_, "model_labels_unreadable", std::string(labels.status().message()));
  if (labels.ok()) last_labels_ = *std::move(labels);
  return last_labels_;
}

absl::Status ModelManager::Update() {
  absl::StatusOr<std::vector<ModelFile>> files = ListModels(options_.path);
  if (files.ok() && files->empty()) {
    files = absl::NotFoundError(absl::StrCat(
        options_.path, " holds no model; put checkpoints there as <version>.safetensors"));
  }
  Complain(said_folder_, "models_unreadable", std::string(files.status().message()));
  NESTREC_RETURN_IF_ERROR(files.status());
  const v1::ModelLabels labels = CurrentLabels();
  {
    const MutexLock lock(mutex_);
    files_ = *files;
    DetachLost();
    std::erase_if(versions_, [&](const Version& version) {  // gone, or another file by now
      return version.state == v1::MODEL_STATE_REFUSED &&
             std::find(files->begin(), files->end(), version.file) == files->end();
    });
  }

  absl::Status failure;
  Rollout rollout;
  while (true) {
    rollout = ResolveLabels(labels, *files, [&](const ModelFile& file) {
      const MutexLock lock(mutex_);
      const Version* version = Find(file);
      return version != nullptr && version->state == v1::MODEL_STATE_REFUSED;
    });
    const ModelFile* missing = nullptr;
    for (const auto* wanted : {&rollout.stable, &rollout.canary}) {
      const MutexLock lock(mutex_);
      if (missing == nullptr && wanted->has_value() && Find(**wanted) == nullptr) {
        missing = &**wanted;
      }
    }
    if (missing == nullptr) break;
    if (absl::Status loaded = Load(*missing); !loaded.ok()) {
      if (absl::IsDataLoss(loaded)) GiveUpOverwritten(*missing);
      if (failure.ok()) failure = std::move(loaded);
    }
  }
  Complain(said_rollout_, "model_labels_unmet", rollout.complaint);

  std::string stable, canary;
  {
    const MutexLock lock(mutex_);
    const auto snapshot_of = [&](const std::optional<ModelFile>& file) {
      Version* version = file.has_value() ? Find(*file) : nullptr;
      if (version == nullptr) return std::shared_ptr<const Snapshot>();
      version->state = v1::MODEL_STATE_AVAILABLE;
      return version->snapshot;
    };
    Routes next{.stable = snapshot_of(rollout.stable),
                .canary = snapshot_of(rollout.canary),
                .canary_share = labels.canary_share(),
                .shadow_share = labels.shadow_share(),
                .canary_salt = rollout.canary.has_value() ? CanarySalt(rollout.canary->name) : 0};
    if (next.stable == nullptr) next.stable = routes_.stable;
    if (next.canary == next.stable) next.canary = nullptr;
    if (next.stable != routes_.stable || next.canary != routes_.canary) {
      stable = next.stable == nullptr ? "" : next.stable->version();
      canary = next.canary == nullptr ? "" : next.canary->version();
    }
    routes_ = std::move(next);
    labels_ = labels;
    for (Version& version : versions_) {
      if (version.snapshot != nullptr && version.snapshot != routes_.stable &&
          version.snapshot != routes_.canary) {
        version.state = v1::MODEL_STATE_DRAINING;
      }
    }
  }
  if (!stable.empty()) {
    options_.log.Info("models_serving", {{"stable", stable},
                                         {"canary", canary.empty() ? "none" : canary},
                                         {"canary_share", labels.canary_share()},
                                         {"shadow_share", labels.shadow_share()}});
  }
  NESTREC_RETURN_IF_ERROR(failure);
  return rollout.complaint.empty() ? absl::OkStatus()
                                   : absl::FailedPreconditionError(rollout.complaint);
}

absl::Status ModelManager::Load(const ModelFile& file) {
  const auto start = std::chrono::steady_clock::now();
  {
    const MutexLock lock(mutex_);
    versions_.push_back({.file = file});
  }
  const auto load = [&]() -> absl::StatusOr<std::shared_ptr<const Snapshot>> {
    // The first model loads before there are requests to disturb.
    if (prepare_ == nullptr) return options_.load(file.path);
    absl::StatusOr<std::shared_ptr<const Snapshot>> snapshot = absl::UnknownError("");
    InBackground([&] {
      snapshot = Guard("loading a model", [&] { return options_.load(file.path); });
      if (!snapshot.ok()) return;
      const absl::Status prepared =
          Guard("preparing a model", [&] { return prepare_(**snapshot); });
      if (!prepared.ok()) snapshot = prepared;
    });
    return snapshot;
  };
  absl::StatusOr<std::shared_ptr<const Snapshot>> loaded = Guard("loading a model", load);
  if (loaded.ok() && (!(*loaded)->intact() || Overwritten(file))) {
    loaded = absl::DataLossError(absl::StrCat(
        file.path, " was changed while it was read; put versions there by rename (mv)"));
  }
  const absl::Duration took = Between(start, std::chrono::steady_clock::now());
  // Where nothing else could serve it is the caller's error.
  if (!loaded.ok() && (prepare_ != nullptr || IsFolder(options_.path))) {
    options_.log.Warning("model_refused",
                         {{"path", file.path}, {"why", loaded.status().message()}});
  }
  const MutexLock lock(mutex_);
  Version& version = *Find(file);
  version.load_time = took;
  if (!loaded.ok()) {
    version.state = v1::MODEL_STATE_REFUSED;
    version.error = std::string(loaded.status().message());
    version.wants_room = absl::IsResourceExhausted(loaded.status());
    ++stats_.refused;
    return loaded.status();
  }
  version.state = v1::MODEL_STATE_AVAILABLE;
  version.available_since = absl::Now();
  version.snapshot = *std::move(loaded);
  ++stats_.loaded;
  return absl::OkStatus();
}

void ModelManager::DetachLost() {
  for (Version& version : versions_) {
    if (version.snapshot == nullptr || version.snapshot->intact() ||
        version.file.stamp == FileStamp()) {
      continue;
    }
    options_.log.Error(
        "model_lost",
        {{"name", version.file.name},
         {"version", version.snapshot->version()},
         {"why", "its file, or that of an index, was changed in place or cannot be read"},
         {"then", "calls get UNAVAILABLE until another version serves"}});
    version.file.stamp = {};
  }
}

void ModelManager::GiveUpOverwritten(const ModelFile& file) {
  const MutexLock lock(mutex_);
  for (const Version& version : versions_) {
    if (version.snapshot != nullptr && SameFileRewritten(version.file.stamp, file.stamp)) {
      version.snapshot->GiveUp();
    }
  }
  DetachLost();
}

ModelManager::Version* ModelManager::Find(const ModelFile& file) {
  const auto found = std::find_if(versions_.begin(), versions_.end(),
                                  [&](const Version& version) { return version.file == file; });
  return found == versions_.end() ? nullptr : &*found;
}

ModelManager::Reaped ModelManager::Reap() {
  std::vector<Version> done;
  Reaped reaped;
  {
    const MutexLock lock(mutex_);
    for (auto version = versions_.begin(); version != versions_.end();) {
      // No route leads here any more, so the count only falls.
      const bool drains = version->state == v1::MODEL_STATE_DRAINING;
      if (drains && version->snapshot.use_count() == 1) {
        done.push_back(std::move(*version));
        version = versions_.erase(version);
        continue;
      }
      reaped.draining = reaped.draining || drains;
      ++version;
    }
  }
  if (done.empty()) return reaped;
  InBackground([&] {
    for (Version& version : done) {
      const std::string number = version.snapshot->version();
      version.snapshot.reset();
      options_.log.Info("model_unloaded", {{"name", version.file.name}, {"version", number}});
    }
    malloc_trim(0);
  });
  const MutexLock lock(mutex_);
  reaped.room =
      std::erase_if(versions_, [](const Version& version) { return version.wants_room; }) > 0;
  return reaped;
}

void ModelManager::Complain(std::string& said, const std::string& event,
                            const std::string& message) const {
  if (message != said && !message.empty()) {
    options_.log.Warning(event, {{"path", options_.path}, {"why", message}});
  }
  said = message;
}

v1::GetStatusResponse ModelManager::Status() const {
  v1::GetStatusResponse status;
  status.set_program_version(kVersion);
  const MutexLock lock(mutex_);
  *status.mutable_labels() = labels_;
  const auto add = [&](const ModelFile& file, v1::ModelState state) {
    v1::ModelVersion* version = status.add_versions();
    version->set_name(file.name);
    version->set_path(file.path);
    version->set_state(state);
    return version;
  };
  for (const ModelFile& file : files_) {
    if (std::none_of(versions_.begin(), versions_.end(),
                     [&](const Version& version) { return version.file == file; })) {
      add(file, v1::MODEL_STATE_ON_DISK);
    }
  }
  for (const Version& version : versions_) {
    v1::ModelVersion* entry = add(version.file, version.state);
    entry->set_error(version.error);
    if (version.load_time > absl::ZeroDuration()) {
      *entry->mutable_load_time() = ToProto(version.load_time);
    }
    if (version.snapshot == nullptr) continue;
    entry->set_model_version(version.snapshot->version());
    *entry->mutable_available_since() = ToProto(version.available_since);
    if (version.snapshot == routes_.stable) entry->add_labels("stable");
    if (version.snapshot == routes_.canary) entry->add_labels("canary");
  }
  std::stable_sort(status.mutable_versions()->begin(), status.mutable_versions()->end(),
                   [](const v1::ModelVersion& a, const v1::ModelVersion& b) {
                     return NaturalLess(a.name(), b.name());
                   });
  return status;
}

absl::Status ModelManager::AskAndWait(bool retry_refused, absl::Duration patience) {
  const auto deadline = std::chrono::steady_clock::now() +
                        absl::ToChronoNanoseconds(std::min(patience, absl::Hours(24)));
  const MutexLock lock(mutex_);
  if (stopping_) return absl::UnavailableError("the server is shutting down");
  retry_refused_ = retry_refused_ || retry_refused;
  const int64_t turn = ++asked_;
  changed_.NotifyAll();
  while (done_ < turn) {
    if (!changed_.WaitUntil(mutex_, deadline) && done_ < turn) {
      return absl::DeadlineExceededError(
          "the models are still being loaded; GetStatus says how far they are");
    }
  }
  return outcome_.ok() || absl::IsUnavailable(outcome_)
             ? outcome_
             : absl::FailedPreconditionError(outcome_.message());
}

absl::Status ModelManager::Reload(absl::Duration patience) {
  return AskAndWait(/*retry_refused=*/true, patience);
}

absl::StatusOr<bool> ModelManager::SetLabels(const v1::ModelLabels& labels,
                                             absl::Duration patience) {
  NESTREC_RETURN_IF_ERROR(CheckModelLabels(labels, "labels"));
  if (!IsFolder(options_.path)) {
    return absl::FailedPreconditionError(
        absl::StrCat(options_.path, " is one model file; labels need a folder of versions"));
  }
  NESTREC_ASSIGN_OR_RETURN(const std::vector<ModelFile> files, ListModels(options_.path));
  if (const Rollout rollout = ResolveLabels(labels, files, [](const ModelFile&) { return false; });
      !rollout.complaint.empty()) {
    return absl::InvalidArgumentError(rollout.complaint);
  }
  v1::ModelLabels before;
  {
    const MutexLock lock(mutex_);
    before = labels_;
  }
  const auto keep = [&](const v1::ModelLabels& what) {
    const absl::Status written = WriteModelLabels(options_.path, what);
    const MutexLock lock(mutex_);
    told_ = written.ok() ? nullptr : std::make_unique<v1::ModelLabels>(what);
    if (!written.ok()) {
      options_.log.Warning("model_labels_not_kept", {{"why", written.message()}});
    }
    return written.ok();
  };
  const bool kept = keep(labels);
  const absl::Status outcome = AskAndWait(/*retry_refused=*/true, patience);
  if (!outcome.ok() && !absl::IsDeadlineExceeded(outcome)) {
    keep(before);
    AskAndWait(/*retry_refused=*/false, patience).IgnoreError();
  }
  NESTREC_RETURN_IF_ERROR(outcome);
  return kept;
}

ModelManager::Stats ModelManager::stats() const {
  const MutexLock lock(mutex_);
  Stats stats = stats_;
  stats.held = std::count_if(versions_.begin(), versions_.end(),
                             [](const Version& version) { return version.snapshot != nullptr; });
  // A version is refused once, and stays so at every look until its file changes or goes.
  stats.unmet |= std::any_of(versions_.begin(), versions_.end(), [](const Version& version) {
    return version.state == v1::MODEL_STATE_REFUSED;
  });
  return stats;
}

}  // namespace nestrec
