// A server of this process over a random model, and a client of it: what tests of calls begin with.
//
//   class FooTest : public ModelServerTest {
//    protected:
//     static void SetUpTestSuite() { LoadModel({.sizes = {8, 64}, .items = 300}, {.threads = 2}); }
//     void SetUp() override { StartServer({.threads = 2}); }
//   };
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/client.h"
#include "server/server.h"
#include "server/snapshot.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {

class ModelServerTest : public ::testing::Test {
 protected:
  // Once for all tests of a suite; `options` without a path.
  static void LoadModel(const RandomModelOptions& model, Snapshot::Options options) {
    suite_ = std::make_unique<Suite>();
    options.path = suite_->folder.File("model.safetensors");
    ASSERT_TRUE(RandomModel(model).Write(options.path).ok());
    auto loaded = Snapshot::Load(options, Log([](absl::string_view) {}));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    suite_->snapshot = *std::move(loaded);
  }
  static void TearDownTestSuite() { suite_.reset(); }

  static const Snapshot& snapshot() { return *suite_->snapshot; }
  static std::shared_ptr<const Snapshot> shared_snapshot() { return suite_->snapshot; }

  void StartServer(ServerOptions options) {
    options.listen = "127.0.0.1:0";
    auto server = Server::Start(std::move(options), suite_->snapshot);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<RecommendClient>(
        RecommendClient::Options{.server = server_->address(), .timeout = absl::Seconds(60)});
  }

  std::unique_ptr<Server> server_;
  std::unique_ptr<RecommendClient> client_;

 private:
  struct Suite {
    TempFolder folder;
    std::shared_ptr<const Snapshot> snapshot;
  };
  static inline std::unique_ptr<Suite> suite_;
};

}  // namespace nestrec
