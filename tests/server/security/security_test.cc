// TLS, tokens and limits on a real server in this process.
#include "server/security/security.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "nestrec/v1/admin.grpc.pb.h"
#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/client.h"
#include "server/rpc_status.h"
#include "server/server.h"
#include "server/status_details.h"
#include "tests/server/security/certificates.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kToken[] = "token-of-the-shop";
constexpr char kOperatorToken[] = "token-of-the-operator";

class SecurityTest : public ::testing::Test {
 protected:
  SecurityTest() : authority_("test authority"), other_authority_("other authority") {
    EXPECT_TRUE(RandomModel({.sizes = {8}, .items = 20}).Write(folder_.File("m.safetensors")).ok());
    Put("ca.pem", authority_.certificate());
    PutPair("server", authority_.Sign("server 1"));
  }

  std::string Put(const std::string& name, const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(folder_.File(name), text).ok());
    return folder_.File(name);
  }
  void PutPair(const std::string& name, const PemPair& pair) {
    Put(name + ".pem", pair.certificate);
    Put(name + ".key", pair.key);
  }
  TlsFiles Tls(const std::string& client_ca = "") const {
    return {.certificate = folder_.File("server.pem"),
            .key = folder_.File("server.key"),
            .client_ca = client_ca.empty() ? "" : folder_.File(client_ca)};
  }

  absl::Status TryStart(const SecurityOptions& security) {
    const Log log([this](absl::string_view line) {
      const std::lock_guard lock(mutex_);
      lines_ += absl::StrCat(line, "\n");
    });
    auto models = ModelManager::Create({.path = folder_.File("m.safetensors"),
                                        .load =
                                            [](const std::string& path) {
                                              return Snapshot::Load({.path = path},
                                                                    Log([](absl::string_view) {}));
                                            },
                                        .log = log});
    if (!models.ok()) return models.status();
    auto server = Server::Start(
        {.listen = "127.0.0.1:0", .admin_listen = "127.0.0.1:0", .security = security, .log = log},
        std::shared_ptr<ModelManager>(*std::move(models)));
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    return absl::OkStatus();
  }
  void Start(SecurityOptions security) {
    security.refresh = absl::Milliseconds(20);
    ASSERT_EQ(TryStart(security), absl::OkStatus());
  }
  std::string Lines() {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

  // A new connection each time.
  static std::shared_ptr<grpc::Channel> Connect(
      const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(address, credentials, arguments);
  }
  std::shared_ptr<grpc::ChannelCredentials> ClientTls(const PemPair& pair = {}) const {
    return grpc::SslCredentials({.pem_root_certs = authority_.certificate(),
                                 .pem_private_key = pair.key,
                                 .pem_cert_chain = pair.certificate});
  }
  absl::Status Call(const std::shared_ptr<grpc::ChannelCredentials>& credentials,
                    const std::string& authorization = "", std::string* subject = nullptr) const {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    v1::GetModelInfoResponse response;
    const auto stub = v1::RecommendService::NewStub(Connect(server_->address(), credentials));
    const grpc::Status status = stub->GetModelInfo(&context, {}, &response);
    if (subject != nullptr && context.auth_context() != nullptr) {
      const auto names = context.auth_context()->FindPropertyValues("x509_common_name");
      *subject = names.empty() ? "" : std::string(names[0].data(), names[0].size());
    }
    return FromGrpcStatus(status);
  }
  absl::Status AskOperator(const std::string& authorization) const {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    v1::GetStatusResponse response;
    const auto stub = v1::AdminService::NewStub(
        Connect(server_->admin_address(), grpc::InsecureChannelCredentials()));
    return FromGrpcStatus(stub->GetStatus(&context, {}, &response));
  }
  // Polls; the files are taken up within about a second.
  template <typename Condition>
  static bool Eventually(Condition condition) {
    for (int i = 0; i < 3000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }

  const TempFolder folder_;
  const TestAuthority authority_, other_authority_;
  std::mutex mutex_;
  std::string lines_;
  std::unique_ptr<Server> server_;
};

TEST_F(SecurityTest, ServesOverTlsAndNotInPlainText) {
  Start({.tls = Tls()});
  std::string subject;
  EXPECT_EQ(Call(ClientTls(), "", &subject), absl::OkStatus());
  EXPECT_EQ(subject, "server 1");
  EXPECT_EQ(Call(grpc::InsecureChannelCredentials()).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Lines(), HasSubstr("tls_certificate subject=\"CN=server 1\""));
}

TEST_F(SecurityTest, AsksForAClientCertificateOfItsAuthority) {
  Start({.tls = Tls("ca.pem")});
  EXPECT_EQ(Call(ClientTls(authority_.Sign("a shop"))), absl::OkStatus());
  EXPECT_EQ(Call(ClientTls()).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Call(ClientTls(other_authority_.Sign("a shop"))).code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(SecurityTest, TakesUpANewCertificateAndNoBadOne) {
  Start({.tls = Tls()});
  const auto served = [&] {
    std::string subject;
    EXPECT_EQ(Call(ClientTls(), "", &subject), absl::OkStatus());
    return subject;
  };
  EXPECT_EQ(served(), "server 1");
  PutPair("server", authority_.Sign("server 2"));
  EXPECT_TRUE(Eventually([&] { return served() == "server 2"; }));
  Put("server.key", authority_.Sign("another").key);
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Lines(), "is not the key of"); }));
  Put("server.pem", "");
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Lines(), "holds no certificate"); }));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(served(), "server 2");
  PutPair("server", authority_.Sign("server 3"));
  EXPECT_TRUE(Eventually([&] { return served() == "server 3"; }));
  EXPECT_THAT(Lines(), Not(HasSubstr("PRIVATE KEY")));
}

TEST_F(SecurityTest, RefusesFilesThatCannotServe) {
  const auto refused = [&](const TlsFiles& tls) {
    return std::string(TryStart({.tls = tls}).message());
  };
  TlsFiles tls = Tls();
  tls.key = "";
  EXPECT_THAT(refused(tls), HasSubstr("the key is missing"));
  tls.key = folder_.File("none.key");
  EXPECT_THAT(refused(tls), HasSubstr("none.key"));
  tls.key = tls.certificate;
  EXPECT_THAT(refused(tls), HasSubstr("holds no private key"));
  tls.key = Put("other.key", authority_.Sign("other").key);
  EXPECT_THAT(refused(tls), HasSubstr("is not the key of"));
  tls = Tls();
  tls.client_ca = Put("empty.pem", "");
  EXPECT_THAT(refused(tls), HasSubstr("empty.pem holds no certificate"));
}

TEST_F(SecurityTest, SaysThatACertificateHasExpired) {
  PutPair("server", authority_.Sign("old server", -absl::Hours(1)));
  Start({.tls = Tls()});
  EXPECT_THAT(Lines(), HasSubstr("tls_certificate_expired"));
}

TEST_F(SecurityTest, AsksForATokenAndTellsClientsFromOperators) {
  const std::string tokens =
      Put("tokens", absl::StrCat("shop ", kToken, "\nops ", kOperatorToken, " admin\n"));
  Start({.access = {.token_file = tokens}});
  const auto plain = grpc::InsecureChannelCredentials();
  const absl::Status without = Call(plain);
  EXPECT_EQ(without.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(without.message()), HasSubstr("authorization: Bearer"));
  EXPECT_EQ(Call(plain, absl::StrCat("Bearer ", kToken, "x")).code(),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Call(plain, absl::StrCat("Basic ", kToken)).code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Call(plain, absl::StrCat("bearer  ", kToken)), absl::OkStatus());
  EXPECT_EQ(Call(plain, absl::StrCat("Bearer ", kOperatorToken)), absl::OkStatus());

  EXPECT_EQ(AskOperator("").code(), absl::StatusCode::kUnauthenticated);
  const absl::Status no_operator = AskOperator(absl::StrCat("Bearer ", kToken));
  EXPECT_EQ(no_operator.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(no_operator.message()), HasSubstr("shop is no operator"));
  EXPECT_EQ(AskOperator(absl::StrCat("Bearer ", kOperatorToken)), absl::OkStatus());

  // Items are changed by operators; what this server says to them is that it takes none.
  const auto upsert = [&](absl::string_view token) {
    const RecommendClient client({.server = server_->address(),
                                  .timeout = absl::Seconds(60),
                                  .credentials = {.token = std::string(token)}});
    return client.UpsertItems({}).status().code();
  };
  EXPECT_EQ(upsert(kToken), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(upsert(kOperatorToken), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SecurityTest, TakesUpNewTokensAndNoBadOnes) {
  Put("tokens", absl::StrCat("shop ", kToken, "\n"));
  Start({.access = {.token_file = folder_.File("tokens")}});
  const auto plain = grpc::InsecureChannelCredentials();
  const auto with = [&](const std::string& token) {
    return Call(plain, absl::StrCat("Bearer ", token)).code();
  };
  Put("tokens", "shop another-good-token\n");
  EXPECT_TRUE(Eventually([&] { return with("another-good-token") == absl::StatusCode::kOk; }));
  EXPECT_EQ(with(kToken), absl::StatusCode::kUnauthenticated);
  Put("tokens", "shop\n");
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Lines(), "tokens_refused"); }));
  EXPECT_EQ(with("another-good-token"), absl::StatusCode::kOk);
  EXPECT_THAT(Lines(), Not(HasSubstr("another-good-token")));
}

TEST_F(SecurityTest, LimitsHowOftenAClientCallsAndSaysWhenItMayAgain) {
  const std::string tokens = Put("tokens", absl::StrCat("a ", kToken, "\nb ", kOperatorToken));
  Start({.access = {.token_file = tokens, .rate_limit = 0.001, .rate_burst = 2}});
  const auto plain = grpc::InsecureChannelCredentials();
  const std::string a = absl::StrCat("Bearer ", kToken);
  EXPECT_EQ(Call(plain, a), absl::OkStatus());
  EXPECT_EQ(Call(plain, a), absl::OkStatus());
  const absl::Status limited = Call(plain, a);
  EXPECT_EQ(limited.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(RetryDelayOf(limited).value_or(absl::ZeroDuration()), absl::Seconds(900));
  EXPECT_EQ(Call(plain, absl::StrCat("Bearer ", kOperatorToken)), absl::OkStatus());
}

TEST_F(SecurityTest, ABatchCountsAsItsRequests) {
  Start({.access = {.rate_limit = 0.001, .rate_burst = 10}});
  const RecommendClient client({.server = server_->address(), .timeout = absl::Seconds(60)});
  v1::BatchRecommendRequest batch;
  for (int i = 0; i < 7; ++i) batch.add_requests();
  int answers = 0;
  absl::Status limited;
  while (limited.ok() && answers < 100) {
    const auto response = client.BatchRecommend(batch);
    limited = response.status();
    answers += response.ok() ? response->results_size() : 0;
  }
  EXPECT_EQ(limited.code(), absl::StatusCode::kResourceExhausted);
  // The second one began with three calls left.
  EXPECT_EQ(answers, 14);
  EXPECT_GT(RetryDelayOf(limited).value_or(absl::ZeroDuration()), absl::Seconds(4000));
}

TEST_F(SecurityTest, WrongTokensAreLimitedByAddressAndTakeNothingFromClients) {
  const std::string tokens = Put("tokens", absl::StrCat("a ", kToken, "\n"));
  Start({.access = {.token_file = tokens, .rate_limit = 0.001, .rate_burst = 2}});
  const auto plain = grpc::InsecureChannelCredentials();
  EXPECT_EQ(Call(plain, "Bearer wrong").code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Call(plain).code(), absl::StatusCode::kUnauthenticated);
  const absl::Status limited = Call(plain, "Bearer wrong");
  EXPECT_EQ(limited.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(RetryDelayOf(limited).value_or(absl::ZeroDuration()), absl::Seconds(900));
  EXPECT_EQ(Call(plain, absl::StrCat("Bearer ", kToken)), absl::OkStatus());
}

}  // namespace
}  // namespace nestrec
