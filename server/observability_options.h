// What a server is to show of itself. Values.
#pragma once

namespace nestrec {

class Metrics;

// All that is pointed to outlives the server.
struct ObservabilityOptions {
  Metrics* metrics = nullptr;  // null: nothing is counted
};

}  // namespace nestrec
