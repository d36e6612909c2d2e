#include "server/security/access_control.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

constexpr absl::string_view kHow = "send the metadata `authorization: Bearer <token>`";

absl::string_view View(const grpc::string_ref& text) { return {text.data(), text.size()}; }

// The token of the metadata; empty: none.
absl::string_view BearerToken(const grpc::ServerContextBase& context) {
  const auto entry = context.client_metadata().find("authorization");
  if (entry == context.client_metadata().end()) return {};
  absl::string_view value = View(entry->second);
  constexpr absl::string_view kScheme = "bearer ";
  if (!absl::StartsWithIgnoreCase(value, kScheme)) return {};
  value.remove_prefix(kScheme.size());
  return absl::StripAsciiWhitespace(value);
}

// "ipv4:10.0.0.7:51234" -> "ipv4:10.0.0.7".
std::string AddressOf(const grpc::ServerContextBase& context) {
  const std::string peer = context.peer();
  return peer.substr(0, peer.rfind(':'));
}

// By certificate, else by address.
std::string NameOf(const grpc::ServerContextBase& context) {
  const auto auth = context.auth_context();
  if (auth != nullptr && auth->IsPeerAuthenticated()) {
    const auto names = auth->FindPropertyValues("x509_common_name");
    if (!names.empty() && !names.front().empty()) return std::string(View(names.front()));
  }
  return AddressOf(context);
}

// Calls that change what every client gets.
bool ChangesItems(absl::string_view method) {
  return method == "UpsertItems" || method == "RemoveItems";
}

absl::Status NoOperator(absl::string_view client) {
  return absl::PermissionDeniedError(
      absl::StrCat(client, " is no operator; its line in the token file lacks `admin`"));
}

}  // namespace

AccessControl::AccessControl(Options options, Log log)
    : options_(std::move(options)), log_(std::move(log)) {
  if (options_.rate_limit > 0) {
    const double burst = options_.rate_burst > 0 ? options_.rate_burst : options_.rate_limit;
    const RateLimiter::Options limit{.rate = options_.rate_limit, .burst = std::max(1.0, burst)};
    limiter_ = std::make_unique<RateLimiter>(limit);
    // Apart: their addresses, however many, take no client's place.
    strangers_ = std::make_unique<RateLimiter>(limit);
  }
}

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Create(const Options& options,
                                                                     const Log& log) {
  std::unique_ptr<AccessControl> access(new AccessControl(options, log));
  if (!options.token_file.empty()) {
    NESTREC_ASSIGN_OR_RETURN(TokenTable tokens, TokenTable::Read(options.token_file));
    log.Info("tokens", {{"path", options.token_file}, {"clients", tokens.size()}});
    const MutexLock lock(access->mutex_);
    access->tokens_ = std::make_shared<const TokenTable>(std::move(tokens));
  }
  return access;
}

std::shared_ptr<const TokenTable> AccessControl::tokens() const {
  const MutexLock lock(mutex_);
  return tokens_;
}

absl::StatusOr<TokenTable::Client> AccessControl::Authenticate(
    const grpc::ServerContextBase& context) const {
  const std::shared_ptr<const TokenTable> tokens = this->tokens();
  if (tokens == nullptr) return TokenTable::Client{.name = NameOf(context), .admin = true};
  const absl::string_view token = BearerToken(context);
  if (token.empty()) {
    return absl::UnauthenticatedError(absl::StrCat("this server asks for a token: ", kHow));
  }
  const TokenTable::Client* client = tokens->Find(token);
  if (client == nullptr) {
    return absl::UnauthenticatedError("the token is not one of this server's");
  }
  return *client;
}

absl::Status AccessControl::Begin(CallInfo& call) {
  absl::StatusOr<TokenTable::Client> client = Authenticate(*call.context);
  if (!client.ok()) {
    if (strangers_ != nullptr) {
      NESTREC_RETURN_IF_ERROR(Take(*strangers_, AddressOf(*call.context), call));
    }
    return client.status();
  }
  call.client = std::move(client->name);
  if (!client->admin && ChangesItems(call.method)) return NoOperator(call.client);
  return limiter_ == nullptr ? absl::OkStatus() : Take(*limiter_, call.client, call);
}

absl::Status AccessControl::Take(RateLimiter& limiter, absl::string_view client,
                                 const CallInfo& call) const {
  const absl::Duration wait =
      limiter.Take(client, call.arrived, static_cast<double>(std::max<int64_t>(1, call.requests)));
  if (wait <= absl::ZeroDuration()) return absl::OkStatus();
  return WithRetryDelay(
      absl::ResourceExhaustedError(absl::StrCat("more than ", options_.rate_limit,
                                                " calls per second, of which a batch is as many as "
                                                "it has requests; slow down, or ask the operator "
                                                "for a higher limit")),
      wait);
}

absl::Status AccessControl::AdmitOperator(const grpc::ServerContextBase& context) const {
  NESTREC_ASSIGN_OR_RETURN(const TokenTable::Client client, Authenticate(context));
  return client.admin ? absl::OkStatus() : NoOperator(client.name);
}

void AccessControl::Refresh() {
  if (options_.token_file.empty()) return;
  absl::StatusOr<TokenTable> read = TokenTable::Read(options_.token_file);
  const std::string says(read.status().message());
  if (says != said_ && !says.empty()) {
    log_.Warning("tokens_refused", {{"why", says}, {"then", "the old ones are good"}});
  }
  said_ = says;
  if (!read.ok()) return;
  auto next = std::make_shared<const TokenTable>(*std::move(read));
  const MutexLock lock(mutex_);
  tokens_ = std::move(next);
}

}  // namespace nestrec
