#include "server/serving_collectors.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/version.h"

namespace nestrec {
namespace {

template <typename Number>
double Value(Number number) {
  return static_cast<double>(number);
}

void WriteQueues(RecommendEngine& engine, MetricWriter& writer) {
  for (const LaneStats& lane : engine.queue_stats()) {
    const auto shed = [&](const char* reason, int64_t count) {
      writer.Counter("nestrec_shed_total",
                     "Requests that were turned away: full: no place in the queue; late: they "
                     "would have waited "
                     "for more than half of their time.",
                     Value(count), {{"tier", lane.name}, {"reason", reason}});
    };
    const auto dropped = [&](const char* reason, int64_t count) {
      writer.Counter("nestrec_dropped_total",
                     "Requests that ended in the queue: expired or cancelled.", Value(count),
                     {{"tier", lane.name}, {"reason", reason}});
    };
    writer.Gauge("nestrec_queue_length", "Requests that wait for a worker.", Value(lane.waiting),
                 {{"tier", lane.name}});
    writer.Counter("nestrec_queued_total", "Requests that were let into the queue.",
                   Value(lane.accepted), {{"tier", lane.name}});
    shed("full", lane.refused_full);
    shed("late", lane.refused_late);
    dropped("expired", lane.expired);
    dropped("cancelled", lane.cancelled);
  }
  writer.Gauge("nestrec_narrowing_steps",
               "Widths that the load takes off every tier's widest now; 0 is good.",
               engine.narrowing());
}

void WriteSessionWorkers(WorkerPool& workers, MetricWriter& writer) {
  const WorkerPool::Stats stats = workers.stats();
  const auto dropped = [&](const char* reason, int64_t count) {
    writer.Counter("nestrec_session_calls_dropped_total",
                   "Calls about sessions that found no place in their queue (full), or ended in it "
                   "(expired, cancelled).",
                   Value(count), {{"reason", reason}});
  };
  writer.Gauge("nestrec_session_queue_length", "Calls about sessions that wait for a thread.",
               Value(stats.waiting));
  dropped("full", stats.refused);
  dropped("expired", stats.expired);
  dropped("cancelled", stats.cancelled);
}

void WriteSessions(const SessionManager& sessions, MetricWriter& writer) {
  const SessionStats stats = sessions.stats();
  const auto ended = [&](const char* reason, int64_t count) {
    writer.Counter("nestrec_sessions_ended_total",
                   "Sessions that ended: evicted for want of room, or expired.", Value(count),
                   {{"reason", reason}});
  };
  const auto answered = [&](const char* way, int64_t count) {
    writer.Counter(
        "nestrec_session_answers_total",
        "Vectors of sessions: remembered as they were, stepped on, or replayed from the log.",
        Value(count), {{"way", way}});
  };
  writer.Gauge("nestrec_sessions", "Sessions in memory, of a folder's store.",
               Value(stats.log.sessions));
  writer.Gauge("nestrec_session_log_bytes", "Memory of the log of sessions, of a folder's store.",
               Value(stats.log.bytes));
  writer.Gauge("nestrec_session_file_bytes", "Bytes of the log's files, of a folder's store.",
               Value(stats.log.file_bytes));
  ended("evicted", stats.log.evicted);
  ended("expired", stats.log.expired);
  writer.Counter("nestrec_session_log_operations_total",
                 "Writes to the log's files, or calls of Redis.", Value(stats.log.operations));
  writer.Counter("nestrec_session_log_errors_total",
                 "Writes and calls that failed: a full disk, a Redis that does not answer.",
                 Value(stats.log.errors));
  writer.Counter("nestrec_session_log_seconds_total",
                 "What writes and calls took, syncs to disk included.",
                 absl::ToDoubleSeconds(stats.log.time));
  writer.Gauge("nestrec_session_states", "Users whose state is kept in memory.",
               Value(stats.states.states));
  writer.Gauge("nestrec_session_state_bytes", "Memory of users' states.",
               Value(stats.states.bytes));
  writer.Counter("nestrec_session_states_evicted_total", "Users' states that made room for others.",
                 Value(stats.states.evicted));
  answered("remembered", stats.remembered);
  answered("stepped", stats.stepped);
  answered("replayed", stats.replayed);
  writer.Counter("nestrec_session_items_total", "Items that were computed for vectors of sessions.",
                 Value(stats.computed));
}

void WriteVersions(const ModelManager& models, MetricWriter& writer) {
  const ModelManager::Stats stats = models.stats();
  const auto loads = [&](const char* result, int64_t count) {
    writer.Counter("nestrec_model_loads_total", "Model versions that were read: loaded or refused.",
                   Value(count), {{"result", result}});
  };
  loads("loaded", stats.loaded);
  loads("refused", stats.refused);
  writer.Gauge("nestrec_models", "Model versions in memory, those included that drain.",
               Value(stats.held));
  writer.Gauge("nestrec_model_unmet",
               "1 while a version is refused, or what should serve, by folder and labels, is not "
               "what does.",
               stats.unmet ? 1 : 0);
}

void WriteModel(const Snapshot& snapshot, MetricWriter& writer) {
  writer.Gauge("nestrec_model_info", "1, for the model that serves.", 1,
               {{"name", snapshot.checkpoint().info().name},
                {"version", snapshot.version()},
                {"program_version", kVersion}});
  writer.Gauge("nestrec_model_self_check_users",
               "Users of its checkpoint that the model that serves was checked with; 0: it serves "
               "unchecked.",
               Value(snapshot.checkpoint().info().self_check.size()));
  const std::shared_ptr<const ItemView> items = snapshot.items();
  writer.Gauge("nestrec_items", "Items that may come back, upserted ones included.",
               Value(items->listed()));
  const LiveCounts& live = items->counts();
  for (const auto& [state, count] :
       {std::pair("added", live.added), std::pair("changed", live.changed),
        std::pair("removed", live.removed), std::pair("skipped", live.skipped)}) {
    writer.Gauge(
        "nestrec_live_items",
        "How the items that are served differ from the model's: added, changed, removed; skipped: "
        "upserted, but of no use to it.",
        Value(count), {{"state", state}});
  }
  writer.Gauge("nestrec_live_item_bytes", "Memory of upserted and removed items.",
               Value(live.bytes));
  for (int levels = 1; levels <= snapshot.sizes().levels(); ++levels) {
    const int dim = snapshot.sizes().end(levels - 1);
    const MetricLabels labels = {{"dim", absl::StrCat(dim)}};
    writer.Gauge("nestrec_index_bytes", "Memory of the indexes, by width.",
                 Value(snapshot.index_bytes(dim)), labels);
    writer.Gauge("nestrec_model_bytes",
                 "Tensors that a width needs; it holds those of the narrower ones.",
                 Value(snapshot.checkpoint().LevelBytes(levels)), labels);
  }
}

}  // namespace

std::unique_ptr<Metrics::Registration> CollectServing(Metrics& metrics, const ServingParts& parts) {
  return metrics.Collect([parts](MetricWriter& writer) {
    WriteQueues(*parts.engine, writer);
    if (parts.session_workers != nullptr) WriteSessionWorkers(*parts.session_workers, writer);
    if (parts.sessions != nullptr) WriteSessions(*parts.sessions, writer);
    WriteModel(*parts.snapshots->Stable(), writer);
    if (parts.models != nullptr) WriteVersions(*parts.models, writer);
  });
}

}  // namespace nestrec
