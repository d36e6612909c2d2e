#include "server/server_config.h"

#include "tests/fuzz/targets.h"

namespace nestrec {

void FuzzServerConfig(absl::string_view bytes) {
  ParseServerConfig(bytes, "config").status().IgnoreError();
}

}  // namespace nestrec
