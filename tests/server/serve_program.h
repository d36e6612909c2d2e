// `nestrec serve` as a child process with all that operators see of it, for tests.
//
//   ServeProgram program({.more = {"--channelz"}});
//   ASSERT_TRUE(program.Start().ok());
//   program.Page("/metrics").text;
//
// Not thread-safe.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/client.h"
#include "tests/testing/child_process.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {

class ServeProgram {
 public:
  struct Options {
    std::string program;            // its path
    std::vector<std::string> more;  // flags
    bool sessions = true;
    // Two models in place of one: the second computes what the first answers, for comparison.
    bool shadow = false;
  };
  explicit ServeProgram(Options options);

  // Returns when it serves.
  absl::Status Start();

  struct Page {
    int code = 0;  // 0: no answer
    std::string text;
  };
  Page Get(const std::string& path) const;

  // Values of /metrics by name and labels as they stand there; histograms as _bucket, _sum, _count.
  std::map<std::string, double> Metrics() const;
  struct MetricFamily {
    std::string kind;              // counter, gauge or histogram
    std::string help;              // as it stands in the HELP line
    std::set<std::string> labels;  // of any of its series, without a histogram's "le"
  };
  // What /metrics has, by name.
  std::map<std::string, MetricFamily> MetricFamilies() const;

  const std::string& address() const { return address_; }
  const std::string& http_address() const { return http_address_; }
  const std::string& health_address() const { return health_address_; }
  // Of a listener whose port file is folder().File(name).
  std::string AddressIn(const std::string& name) const;
  RecommendClient Client() const;
  ChildProcess& child() { return *child_; }
  const TempFolder& folder() const { return folder_; }

 private:
  const Options options_;
  TempFolder folder_;
  std::string address_, http_address_, health_address_;
  std::unique_ptr<ChildProcess> child_;
};

}  // namespace nestrec
