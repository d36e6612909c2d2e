#include "server/client_channel.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "server/rpc_status.h"

namespace nestrec {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const ClientCredentials& credentials) {
  if (!credentials.tls) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({.pem_root_certs = credentials.authorities,
                               .pem_private_key = credentials.key,
                               .pem_cert_chain = credentials.certificate});
}

}  // namespace

absl::StatusOr<ClientCredentials> ReadClientCredentials(const ClientFiles& files) {
  if (files.certificate.empty() != files.key.empty()) {
    return absl::InvalidArgumentError("a client's certificate and its key belong together");
  }
  ClientCredentials credentials{.tls = files.tls || !files.authorities.empty() ||
                                       !files.certificate.empty()};
  const auto read = [](const std::string& path, std::string& into) -> absl::Status {
    if (path.empty()) return absl::OkStatus();
    NESTREC_ASSIGN_OR_RETURN(into, ReadFile(path, kMaxBytes));
    return absl::OkStatus();
  };
  NESTREC_RETURN_IF_ERROR(read(files.authorities, credentials.authorities));
  NESTREC_RETURN_IF_ERROR(read(files.certificate, credentials.certificate));
  NESTREC_RETURN_IF_ERROR(read(files.key, credentials.key));
  NESTREC_RETURN_IF_ERROR(read(files.token, credentials.token));
  const char* from_environment = std::getenv("NESTREC_TOKEN");
  if (files.token.empty() && from_environment != nullptr) credentials.token = from_environment;
  absl::StripAsciiWhitespace(&credentials.token);
  if (!std::all_of(credentials.token.begin(), credentials.token.end(),
                   [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); })) {
    return absl::InvalidArgumentError(absl::StrCat(
        files.token.empty() ? "NESTREC_TOKEN" : files.token,
        " holds more than one word of printable characters; it must be the token alone"));
  }
  return credentials;
}

ClientChannel::ClientChannel(ClientOptions options) : options_(std::move(options)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // a person's client trusts the server that it asks
  // Else gRPC lets channels to the same address share one connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  channel_ =
      grpc::CreateCustomChannel(options_.server, CredentialsOf(options_.credentials), arguments);
}

std::unique_ptr<grpc::ClientContext> ClientChannel::NewContext() const {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() +
                        absl::ToChronoNanoseconds(options_.timeout));
  if (!options_.credentials.token.empty()) {
    context->AddMetadata("authorization", absl::StrCat("Bearer ", options_.credentials.token));
  }
  return context;
}

absl::Status ClientChannel::Explain(const grpc::Status& status) const {
  const absl::Status result = FromGrpcStatus(status);
  switch (result.code()) {
    case absl::StatusCode::kUnavailable:
      // A server that says so itself is connected.
      return channel_->GetState(false) == GRPC_CHANNEL_READY
                 ? result
                 : absl::UnavailableError(
                       absl::StrCat("no server answers at ", options_.server,
                                    options_.credentials.tls ? " with TLS" : "",
                                    "; start one with: nestrec serve --model <file> --listen ",
                                    options_.server));
    case absl::StatusCode::kDeadlineExceeded:
      return absl::DeadlineExceededError(absl::StrCat(
          "no answer from ", options_.server, " within ", absl::FormatDuration(options_.timeout)));
    case absl::StatusCode::kUnimplemented:
      return absl::UnimplementedError(
          absl::StrCat("the server at ", options_.server, " is not a nestrec server"));
    case absl::StatusCode::kUnauthenticated:
      return absl::UnauthenticatedError(absl::StrCat(
          result.message(), "; here: --token-file, or the environment's NESTREC_TOKEN"));
    default:
      return result;
  }
}

}  // namespace nestrec
