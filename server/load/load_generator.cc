#include "server/load/load_generator.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "nestrec/v1/recommend.pb.h"
#include "server/clock.h"
#include "server/rpc_status.h"

namespace nestrec {
namespace {

constexpr char kRecommendMethod[] = "/nestrec.v1.RecommendService/Recommend";
constexpr std::chrono::seconds kLongestSettling{30};
constexpr char kGetModelInfoMethod[] = "/nestrec.v1.RecommendService/GetModelInfo";

struct Connection {
  explicit Connection(const ClientOptions& options) : channel(options), stub(channel.channel()) {}
  ClientChannel channel;
  grpc::GenericStub stub;
};

// One call on its way; the receiver deletes it.
struct Call {
  explicit Call(const Connection& connection) : context(connection.channel.NewContext()) {}
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader;
  grpc::ByteBuffer response;
  grpc::Status status;
  Instant due;
  bool counts = false;
  bool is_recommend = false;
};

// The width that an answer was served at; 0 where it has none. `scratch` keeps its memory.
int ServedDim(grpc::ByteBuffer& response, v1::RecommendResponse& scratch) {
  grpc::ProtoBufferReader bytes(&response);
  return scratch.ParseFromZeroCopyStream(&bytes) ? scratch.served().dim() : 0;
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int CoresAllowed() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) {
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  return CPU_COUNT(&cores);
}

// gRPC's deadlines are on the wall clock; only the distance from now counts.
std::chrono::system_clock::time_point OnWallClock(Instant instant, Instant now) {
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(instant - now);
}

}  // namespace

class LoadGenerator::Impl {
 public:
  Impl(const LoadTarget& target, const std::vector<LoadRequest>& requests) {
    for (int i = 0; i < target.connections; ++i) {
      connections_.push_back(std::make_unique<Connection>(target.client));
    }
    for (const LoadRequest& request : requests) {
      const grpc::Slice slice(request.bytes);
      requests_.push_back(
          {grpc::ByteBuffer(&slice, 1), request.rpc == LoadRequest::Rpc::kRecommend});
    }
  }

  LoadReport Run(const LoadOptions& options) {
    Settle();
    prctl(PR_SET_TIMERSLACK, 1000UL);  // ns; by default a sleep ends 50 us late
    Random random(options.seed, ++runs_);
    const auto due_times = ScheduleArrivals(options.arrivals, options.rate,
                                            options.warm_up + options.duration, random);
    const auto warm_up = absl::ToChronoNanoseconds(options.warm_up);
    LoadReport report{.duration = options.duration, .within = options.within};
    grpc::CompletionQueue queue;
    std::atomic<int64_t> on_their_way{0};
    // The receiver alone touches the report until it has ended; not_sent and late are the sender's.
    std::thread receiver([&] { Receive(queue, report, on_their_way); });
    int64_t not_sent = 0;
    LatencyHistogram late;

    const Instant start = std::chrono::steady_clock::now();
    double cpu_before = CpuSeconds();
    Instant counted_from = start;
    for (const std::chrono::nanoseconds after : due_times) {
      const Instant due = start + after;
      if (due > std::chrono::steady_clock::now()) std::this_thread::sleep_until(due);
      const Instant now = std::chrono::steady_clock::now();
      const bool counts = after >= warm_up;
      if (counts && counted_from == start && warm_up.count() > 0) {
        counted_from = now;
        cpu_before = CpuSeconds();
      }
      // Order: a count that is a little old lets one call more or less through.
      if (on_their_way.load(std::memory_order_relaxed) >= options.most_on_their_way) {
        not_sent += counts ? 1 : 0;
        continue;
      }
      if (counts) late.Add(absl::FromChrono(now - due));
      on_their_way.fetch_add(1, std::memory_order_relaxed);
      Send(queue, due, now, options.deadline, counts);
    }
    const double wall =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - counted_from).count();
    report.generator_cores = CoresAllowed();
    report.generator_cpu =
        wall > 0 ? (CpuSeconds() - cpu_before) / wall / report.generator_cores : 0;
    queue.Shutdown();  // Next hands out what is still to come, and then ends
    receiver.join();
    report.not_sent = not_sent;
    report.late = std::move(late);
    return report;
  }

 private:
  struct Request {
    grpc::ByteBuffer bytes;
    bool is_recommend;
  };

  // Connects, and lets the server finish what earlier calls left behind: one that was overloaded
  // still works on calls whose callers have long given up.
  void Settle() {
    const grpc::ByteBuffer empty(nullptr, 0);
    for (const auto& connection : connections_) {
      grpc::CompletionQueue queue;
      Call call(*connection);
      call.context->set_deadline(std::chrono::system_clock::now() + kLongestSettling);
      call.reader =
          connection->stub.PrepareUnaryCall(call.context.get(), kGetModelInfoMethod, empty, &queue);
      call.reader->StartCall();
      call.reader->Finish(&call.response, &call.status, &call);
      void* tag = nullptr;
      bool ok = false;
      queue.Next(&tag, &ok);  // whatever the answer is; the calls that count will tell
      queue.Shutdown();
    }
  }

  void Send(grpc::CompletionQueue& queue, Instant due, Instant now, absl::Duration deadline,
            bool counts) {
    const Request& request = requests_[next_ % requests_.size()];
    Connection& connection = *connections_[next_ % connections_.size()];
    ++next_;
    auto* call = new Call(connection);
    call->due = due;
    call->counts = counts;
    call->is_recommend = request.is_recommend;
    call->context->set_deadline(OnWallClock(due + absl::ToChronoNanoseconds(deadline), now));
    call->reader = connection.stub.PrepareUnaryCall(
        call->context.get(), request.is_recommend ? kRecommendMethod : kGetModelInfoMethod,
        request.bytes, &queue);
    call->reader->StartCall();
    call->reader->Finish(&call->response, &call->status, call);
  }

  static void Receive(grpc::CompletionQueue& queue, LoadReport& report,
                      std::atomic<int64_t>& on_their_way) {
    v1::RecommendResponse scratch;
    void* tag = nullptr;
    bool ok = false;  // always: a unary call's end comes with its status
    while (queue.Next(&tag, &ok)) {
      const Instant now = std::chrono::steady_clock::now();
      const std::unique_ptr<Call> call(static_cast<Call*>(tag));
      on_their_way.fetch_sub(1, std::memory_order_relaxed);
      if (!call->counts) continue;
      if (call->status.ok()) {
        report.CountAnswer(absl::FromChrono(now - call->due),
                           call->is_recommend ? ServedDim(call->response, scratch) : 0);
      } else {
        report.CountError(FromGrpcStatus(call->status));
      }
    }
  }

  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<Request> requests_;
  size_t next_ = 0;
  uint64_t runs_ = 0;
};

LoadGenerator::LoadGenerator(const LoadTarget& target, const std::vector<LoadRequest>& requests)
    : impl_(std::make_unique<Impl>(target, requests)) {}
LoadGenerator::~LoadGenerator() = default;
LoadReport LoadGenerator::Run(const LoadOptions& options) { return impl_->Run(options); }

}  // namespace nestrec
