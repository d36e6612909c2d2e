// A Redis server of a test's own, on a socket in its folder.
#pragma once

#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/child_process.h"

namespace nestrec {

class RedisServer {
 public:
  // The program; empty when the machine has none, which is when tests are skipped.
  static std::string Program() {
    for (const char* path : {"/usr/bin/redis-server", "/usr/local/bin/redis-server"}) {
      if (FileExists(path)) return path;
    }
    return "";
  }
  static constexpr char kSkipReason[] =
      "no redis-server here; tools/setup.sh test installs what these tests need";

  explicit RedisServer(std::string folder) : folder_(std::move(folder)) {}

  std::string socket() const { return absl::StrCat(folder_, "/redis.sock"); }
  std::string url() const { return absl::StrCat("unix://", socket()); }

  // Events survive its end, by an append-only file that is written before the answer.
  absl::Status Start() {
    auto started = ChildProcess::Start({Program(), "--port", "0", "--unixsocket", socket(), "--dir",
                                        folder_, "--save", "", "--appendonly", "yes",
                                        "--appendfsync", "no", "--daemonize", "no"});
    if (!started.ok()) return started.status();
    process_ = *std::move(started);
    return process_->WaitForOutput("eady to accept connections").status();
  }
  // Kills it.
  void Stop() { process_.reset(); }
  void Pause() { process_->Signal(SIGSTOP); }
  void Continue() { process_->Signal(SIGCONT); }

 private:
  std::string folder_;
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace nestrec
