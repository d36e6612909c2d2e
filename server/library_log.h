// What gRPC and Protobuf have to say, as lines of our log: event `library`, a burst of a few and
// then one a second at most, since clients that send nonsense can cause any number of them.
//
// Thread safety: call it once, before the libraries are used.
#pragma once

#include "server/log.h"

namespace nestrec {

// For the rest of the program.
void SendLibraryLogsTo(const Log& log);

}  // namespace nestrec
