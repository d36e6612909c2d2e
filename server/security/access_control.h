// Who calls, whether they may, and how often: the hook that every RPC passes first.
//
// A client is known by its token, else by its certificate (the common name, proven by mTLS), else
// by its address. Health and reflection are open: they tell nothing that the protos do not.
//
// Thread safety: all methods may be called from any thread; Refresh from one at a time.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/clock.h"
#include "server/log.h"
#include "server/mutex.h"
#include "server/security/rate_limiter.h"
#include "server/security/token_table.h"
#include "server/unary_call.h"

namespace nestrec {

class AccessControl final : public CallHook {
 public:
  struct Options {
    std::string token_file;  // empty: tokens are not asked for
    double rate_limit = 0;   // calls per second and client; 0: none
    double rate_burst = 0;   // 0: one second's
  };

  // Errors of TokenTable::Read.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Create(const Options& options,
                                                               const Log& log);

  // kUnauthenticated without a token that is in the file; kPermissionDenied where the call changes
  // items and the client is no operator; kResourceExhausted, with the time to wait, beyond the
  // limit, of which call.requests are taken; those without a good token have one per address. Sets
  // call.client.
  absl::Status Begin(CallInfo& call) override;
  // The same for operators' calls: kPermissionDenied for a client that is none. Not limited.
  absl::Status AdmitOperator(const grpc::ServerContextBase& context) const;

  // Takes up what the token file holds now; one that cannot be read, or that is wrong, changes
  // nothing and is logged once: tokens_refused.
  void Refresh();

 private:
  AccessControl(Options options, Log log);
  std::shared_ptr<const TokenTable> tokens() const;
  // Everybody is an operator where tokens are not asked for.
  absl::StatusOr<TokenTable::Client> Authenticate(const grpc::ServerContextBase& context) const;

  const Options options_;
  const Log log_;
  absl::Status Take(RateLimiter& limiter, absl::string_view client, const CallInfo& call) const;

  std::unique_ptr<RateLimiter> limiter_;    // null: no limit
  std::unique_ptr<RateLimiter> strangers_;  // of those without a token, by address; null: no limit
  std::string said_;
  mutable Mutex mutex_;
  std::shared_ptr<const TokenTable> tokens_ ABSL_GUARDED_BY(mutex_);  // null: not asked for
};

}  // namespace nestrec
