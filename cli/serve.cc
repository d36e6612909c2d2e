// nestrec serve: the gRPC server, from a checkpoint to a clean exit on SIGTERM.
#include <malloc.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/mapping_guard.h"
#include "base/memory_limits.h"
#include "base/nested_sizes.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/configuration.h"
#include "cli/flags.h"
#include "cli/operator_flags.h"
#include "cli/session_flags.h"
#include "index/cpu_check.h"
#include "server/call_memory.h"
#include "server/library_log.h"
#include "server/lifecycle/model_manager.h"
#include "server/lifecycle/self_check.h"
#include "server/listen_address.h"
#include "server/live/live_items.h"
#include "server/log.h"
#include "server/memory_budget.h"
#include "server/memory_return.h"
#include "server/server.h"
#include "server/server_config.h"
#include "server/snapshot.h"
#include "server/termination.h"

namespace nestrec {
namespace {

struct ServeFlags {
  std::string model;
  std::string config;
  int max_dim = 0;
  std::string index_folder;
  std::string port_file;
  std::string default_tier;
  std::string batch_delay = "0s";
  std::string overload_target = "5ms";
  std::string grace = "10s";
  std::string model_poll = "5s";
  std::string memory_limit = "auto";
  std::string call_memory = "auto";
  std::string item_storage = "float32";
  bool encode_only = false;
  bool own_cores = false;
  ServerOptions server = {.threads = 0};
  SessionFlags sessions;
  OperatorFlags operators;
  LiveItems::Options live_items = {.folder = "none"};
};

absl::StatusOr<absl::Duration> ParseTime(absl::string_view flag, const std::string& text,
                                         absl::Duration least, absl::Duration most) {
  absl::Duration time;
  if (!absl::ParseDuration(text, &time) || time < least || time > most) {
    return UsageError(absl::InvalidArgumentError(
        absl::StrCat(flag, ": '", text, "' is not a duration from ", absl::FormatDuration(least),
                     " to ", absl::FormatDuration(most), ", such as 10s or 500ms")));
  }
  return time;
}

absl::StatusOr<int64_t> CallMemoryOf(const ServeFlags& flags) {
  std::vector<MemoryLimit> limits = ReadMemoryLimits();
  if (uint64_t bytes = 0; absl::SimpleAtoi(flags.memory_limit, &bytes)) {
    limits.push_back({.name = "--memory-limit", .limit_bytes = bytes, .left_bytes = bytes});
  }
  absl::StatusOr<int64_t> bytes =
      CallMemoryOf(flags.call_memory, flags.server.max_message_bytes, limits);
  return bytes.ok() ? std::move(bytes) : UsageError(bytes.status());
}

// Whether the flag's address is one, and free.
absl::Status CheckListenFlag(absl::string_view flag, const std::string& text) {
  const absl::StatusOr<ListenAddress> address = ListenAddress::Parse(text);
  if (!address.ok()) {
    return UsageError(
        absl::InvalidArgumentError(absl::StrCat(flag, ": ", address.status().message())));
  }
  return CheckCanListen(*address);
}

std::string IndexFolderOf(const ServeFlags& flags) {
  if (flags.index_folder.empty()) {
    return absl::StrCat(flags.model, ".indexes");
  }
  return flags.index_folder == "none" ? "" : flags.index_folder;
}

// One version, from its file to a checked snapshot. Later ones than the first are built with one
// thread, beside the requests.
absl::StatusOr<std::shared_ptr<const Snapshot>> LoadModel(const std::string& path,
                                                          Snapshot::Options options,
                                                          const SessionOptions& sessions,
                                                          LiveItems* live_items, bool first,
                                                          const Log& log) {
  options.path = path;
  if (!first) options.threads = 1;
  NESTREC_ASSIGN_OR_RETURN(std::shared_ptr<const Snapshot> snapshot, Snapshot::Load(options, log));
  if (options.sessions) {
    NESTREC_RETURN_IF_ERROR(UsageError(CheckSessionsFit(sessions, snapshot->encoder().max_len())));
  }
  NESTREC_RETURN_IF_ERROR(SelfCheck(*snapshot, log));
  if (live_items != nullptr) {
    NESTREC_RETURN_IF_ERROR(live_items->Attach(snapshot));
  }
  return snapshot;
}

// gRPC waits without a limit for calls of clients that take no bytes, however they are cancelled.
// When the time for calls is over, so is the program: what was acknowledged is safe, as it is when
// the program is killed.
void EndWhenStuck(absl::Duration grace, const Log& log) {
  constexpr absl::Duration kForConnections = absl::Seconds(10);
  std::thread([grace, log] {
    absl::SleepFor(grace + kForConnections);
    log.Warning("stopped", {{"why", "connections did not end within 10s after the grace"}});
    std::_Exit(0);
  }).detach();
}

// For this thread and those that it makes. A thread that is woken on a core waits until the one
// that runs there sleeps: on one core a small call otherwise takes ten changes of threads, each of
// which finds a lock held and gives the core back.
absl::Status DoNotInterruptEachOther() {
  const sched_param param = {};
  if (sched_setscheduler(0, SCHED_BATCH, &param) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, "--own-cores: the system refuses the policy SCHED_BATCH");
}

// Arrays of models go back to the system when they go, however many models came before. The
// allocator otherwise takes the largest array that was ever given back for the size from which on
// arrays are apart, and keeps smaller ones among everything else.
void KeepAllocationsApart() {
  constexpr int kApartBytes = 1 << 20;
  constexpr int kKeptBytes = 16 << 20;  // that are free, at the end of what there is
  mallopt(M_MMAP_THRESHOLD, kApartBytes);
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
}

void LogServing(const Server& server, const TierTable& tiers, int threads, const Log& log) {
  const std::string& admin = server.admin_address();
  log.Info("serving", {{"address", server.address()},
                       {"admin_address", admin.empty() ? "none" : admin},
                       {"tiers", tiers.Names()},
                       {"default_tier", tiers.default_tier().name},
                       {"threads", threads}});
}

absl::Status RunServe(const ServeFlags& flags, const std::vector<LogField>& configuration) {
  NESTREC_RETURN_IF_ERROR(CheckCpu());
  NESTREC_ASSIGN_OR_RETURN(
      const absl::Duration grace,
      ParseTime("--grace", flags.grace, absl::ZeroDuration(), Server::kLongestGrace));
  ServerOptions options = flags.server;
  NESTREC_ASSIGN_OR_RETURN(options.batch_delay,
                           ParseTime("--batch-delay", flags.batch_delay, absl::ZeroDuration(),
                                     Server::kLongestBatchDelay));
  NESTREC_ASSIGN_OR_RETURN(options.overload_target,
                           ParseTime("--overload-target", flags.overload_target,
                                     absl::Microseconds(100), absl::Hours(1)));
  NESTREC_ASSIGN_OR_RETURN(
      const absl::Duration poll,
      ParseTime("--model-poll", flags.model_poll, absl::Milliseconds(10), absl::Hours(24)));
  NESTREC_RETURN_IF_ERROR(UsageError(MemoryBudget::CheckLimit(flags.memory_limit)));
  NESTREC_ASSIGN_OR_RETURN(options.call_memory_bytes, CallMemoryOf(flags));
  // Loading may take minutes; what would fail after it is better known now.
  NESTREC_RETURN_IF_ERROR(CheckListenFlag("--listen", flags.server.listen));
  if (!flags.server.admin_listen.empty()) {
    NESTREC_RETURN_IF_ERROR(CheckListenFlag("--admin-listen", flags.server.admin_listen));
  }
  NESTREC_ASSIGN_OR_RETURN(const SessionOptions session_options, SessionOptionsOf(flags.sessions));
  if (!flags.port_file.empty()) {
    NESTREC_RETURN_IF_ERROR(CheckWritable(flags.port_file));
  }
  NESTREC_RETURN_IF_ERROR(CheckOperatorFlags(flags.operators));
  if (options.threads == 0) {
    options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  TierSettings tiers;
  if (!flags.config.empty()) {
    NESTREC_ASSIGN_OR_RETURN(tiers, ReadServerConfig(flags.config));
  }
  if (!flags.default_tier.empty()) {
    tiers.default_tier = flags.default_tier;
  }

  if (flags.own_cores) NESTREC_RETURN_IF_ERROR(DoNotInterruptEachOther());
  GuardMappings();
  KeepAllocationsApart();
  const MemoryReturn memory_return({});
  // A peer that goes away and a file at its limit are errors of a call, not the end of the program.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<OperatorView> view,
                           OperatorView::Start(flags.operators));
  const Log& log = view->log();
  SendLibraryLogsTo(log);
  log.Info("configuration", configuration);
  options.log = log;
  options.observe = view->options();
  if (KeepsSessions(session_options)) {
    NESTREC_ASSIGN_OR_RETURN(options.sessions, OpenSessions(session_options, log));
  }
  if (flags.live_items.folder != "none") {
    NESTREC_ASSIGN_OR_RETURN(options.live_items, LiveItems::Open(flags.live_items, log));
  }
  MemoryBudget::Options memory{.limit = flags.memory_limit,
                               .call_bytes = static_cast<uint64_t>(options.call_memory_bytes)};
  if (options.sessions != nullptr) {
    memory.state_bytes = [sessions = options.sessions, most = session_options.state_bytes] {
      return most - std::min(most, static_cast<size_t>(sessions->stats().states.bytes));
    };
  }
  const Snapshot::Options snapshot_options{
      .path = "",
      .max_dim = flags.max_dim,
      .tiers = std::move(tiers),
      .index_folder = IndexFolderOf(flags),
      .threads = options.threads,
      .item_storage =
          flags.item_storage == "float16" ? ItemStorage::kFloat16 : ItemStorage::kFloat32,
      .encode_only = flags.encode_only,
      .sessions = options.sessions != nullptr,
      .memory = std::make_shared<const MemoryBudget>(std::move(memory))};
  bool first = true;
  const auto load = [&](const std::string& path) {
    return LoadModel(path, snapshot_options, session_options, options.live_items.get(),
                     std::exchange(first, false), log);
  };
  NESTREC_ASSIGN_OR_RETURN(
      const std::shared_ptr<ModelManager> models,
      ModelManager::Create({.path = flags.model, .load = load, .poll = poll, .log = log}));
  // Until here a signal ends the program at once: there is nothing to drain.
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<TerminationSignal> termination,
                           TerminationSignal::Install());
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::Start(options, models));
  if (!flags.port_file.empty()) {
    NESTREC_RETURN_IF_ERROR(
        WriteFileAtomically(flags.port_file, absl::StrCat(server->port(), "\n")));
  }
  NESTREC_RETURN_IF_ERROR(view->ServersStarted(flags.operators));
  view->readiness().SetReady();
  LogServing(*server, models->Stable()->tiers(), options.threads, log);

  const std::string signal = termination->Wait();
  view->readiness().SetNotReady("the server is draining");
  log.Info("draining", {{"signal", signal}, {"grace", absl::FormatDuration(grace)}});
  EndWhenStuck(grace, log);
  server->Shutdown(grace);
  log.Info("stopped");
  return absl::OkStatus();
}

void AddLiveItemFlags(CLI::App& command, LiveItems::Options& options) {
  command
      .add_option(
          "--items-folder", options.folder,
          "Take items while serving (UpsertItems, RemoveItems) and keep them in this folder "
          "of the server's own; none: take none")
      ->capture_default_str();
  command
      .add_option("--max-live-items", options.max_items,
                  "Most upserted items that are kept; searches look at them one by one")
      ->check(WholeNumber(1, 1'000'000))
      ->capture_default_str();
  command
      .add_option("--max-live-bytes", options.max_bytes,
                  "Most bytes of upserted items that are kept: ids, records and features")
      ->check(WholeNumber(1 << 16, int64_t{1} << 40))
      ->capture_default_str();
}

void AddSecurityFlags(CLI::App& command, SecurityOptions& security) {
  command.add_option(
      "--tls-cert", security.tls.certificate,
      "Certificate of the listeners with its chain, PEM (default: none, plain text)");
  command.add_option("--tls-key", security.tls.key,
                     "Its key, PEM without a pass phrase (default: none)");
  command.add_option("--tls-client-ca", security.tls.client_ca,
                     "Clients need a certificate of one of these authorities, PEM (default: none)");
  command.add_option(
      "--token-file", security.access.token_file,
      "Clients need a bearer token: a line `name token [admin]` for each of them (default: none)");
  command
      .add_option(
          "--rate-limit", security.access.rate_limit,
          "Calls per second that a client may make, a batch counted as its requests; 0: any "
          "number")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  command
      .add_option("--rate-burst", security.access.rate_burst,
                  "Calls that a client may make at once (default: one second's)")
      ->check(CLI::Range(0.0, 1e9));
}

}  // namespace

void AddServeCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "Serve a checkpoint over gRPC");
  command
      ->add_option("--model", flags->model,
                   "Checkpoint, or folder of versions, of which the newest serves")
      ->required();
  command
      ->add_option("--model-poll", flags->model_poll,
                   "How often to look for another model there, 10ms to 24h")
      ->capture_default_str();
  command->add_option("--admin-listen", flags->server.admin_listen,
                      "host:port of the AdminService, for operators alone (default: none)");
  command
      ->add_option("--listen", flags->server.listen,
                   "host:port; 0.0.0.0:50051 for all interfaces; port 0 takes a free one")
      ->capture_default_str();
  command->add_option(
      "--port-file", flags->port_file,
      "File that gets the port once it is bound, complete or not at all (default: none)");
  command->add_option("--config", flags->config,
                      "Tiers, in protobuf text format; docs/operations.md has its keys (default: "
                      "gold, silver, bronze)");
  command->add_option("--default-tier", flags->default_tier,
                      "Tier of requests that name none (default: what --config says, else gold)");
  command
      ->add_option("--max-dim", flags->max_dim,
                   "Load and serve only the sizes up to this one, which is one of them; the wider "
                   "levels are not read (default: the model's)")
      ->check(WholeNumber(NestedSizes::kMinWidth, NestedSizes::kMaxDim));
  command
      ->add_option("--memory-limit", flags->memory_limit,
                   "Refuse models that need more memory than is left of: auto, what control group, "
                   "ulimit and machine allow; a number of bytes for this process; none: take any")
      ->capture_default_str();
  command->add_option("--index-folder", flags->index_folder,
                      "Keep indexes that take long to build here, none: nowhere (default: the "
                      "checkpoint's path with .indexes)");
  CLI::Option* encode_only = command->add_flag(
      "--encode-only", flags->encode_only,
      "Make vectors of histories (Encode) and search nothing: no indexes, and of the "
      "items in memory only those of histories. For items in another engine");
  command
      ->add_option("--item-storage", flags->item_storage,
                   "What searches read of an item's vector: float32, as the model has it, or "
                   "float16, rounded, in half the memory")
      ->check(CLI::IsMember({"float32", "float16"}))
      ->capture_default_str();
  AddSecurityFlags(*command, flags->server.security);
  command
      ->add_option("--threads", flags->server.threads,
                   "Workers; a batch runs on one core; 0: one per core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->add_flag("--own-cores", flags->own_cores,
                    "Nothing else runs on the server's cores: its threads do not interrupt each "
                    "other (SCHED_BATCH), which makes small calls cheaper; where other programs "
                    "share the cores, answers wait for their time slices");
  command
      ->add_option("--queue", flags->server.queue_capacity,
                   "Requests of all tiers that wait for a worker; more are turned away")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      ->add_option("--batch", flags->server.max_batch,
                   "Requests that a worker takes at once, if that many wait")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      ->add_option("--batch-delay", flags->batch_delay,
                   "How long the first request of a batch waits for others: more throughput for "
                   "more latency, up to 1s")
      ->capture_default_str();
  command
      ->add_option(
          "--overload-target", flags->overload_target,
          "A standing wait in the queue from which on requests are served narrower, 100us to 1h")
      ->capture_default_str();
  command
      ->add_option("--max-k", flags->server.limits.max_k, "Most items that a request may ask for")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      ->add_option("--max-history", flags->server.limits.max_history,
                   "Most history ids of a request")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      ->add_option("--max-message-bytes", flags->server.max_message_bytes,
                   "Largest request, in bytes")
      ->check(CLI::Range(1024, 1 << 30))
      ->capture_default_str();
  command
      ->add_option(
          "--max-call-memory", flags->call_memory,
          "Bytes that connections and messages that clients are sending may take together; "
          "beyond it calls end with RESOURCE_EXHAUSTED; auto: an eighth of the memory that "
          "there may be, 33554432 to 268435456")
      ->capture_default_str();
  command
      ->add_option("--grace", flags->grace,
                   "How long running requests may take after SIGTERM, up to 24h; the program ends "
                   "at most 10 s later")
      ->capture_default_str();
  AddSessionFlags(*command, flags->sessions);
  AddLiveItemFlags(*command, flags->live_items);
  encode_only->excludes("--item-storage")->excludes("--items-folder")->excludes("--index-folder");
  AddOperatorFlags(*command, flags->operators);
  command->callback([flags, command, selected] {
    *selected = [flags, command] { return RunServe(*flags, ConfigurationOf(*command)); };
  });
}

}  // namespace nestrec
