// A short run of every target on random changes of its seeds, other ones every time: no search for
// new code as libFuzzer's, but with any compiler, and so in every run of all tests. An input that
// crashes or hangs is written to a file, whose name is printed.
//
//   NESTREC_FUZZ_SECONDS=60 fuzz_mutation_test --gtest_filter=*request   # for longer
//   NESTREC_FUZZ_SEED=7 fuzz_mutation_test                               # the same again
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "tests/fuzz/targets.h"

namespace nestrec {
namespace {

constexpr double kSeconds = 3;            // a target
constexpr unsigned kHangsAfter = 60;      // seconds for one input
constexpr size_t kMostBytes = 64 * 1024;  // of an input

// What runs at the moment, for a signal handler.
const char* running_bytes = nullptr;
size_t running_size = 0;
char crash_path[4096];

void SaveAndDie(int signal) {
  const int file = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file >= 0 && write(file, running_bytes, running_size) == static_cast<ssize_t>(running_size)) {
    constexpr char kMessage[] = "the input is in ";
    [[maybe_unused]] ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
    size_t length = 0;
    while (crash_path[length] != 0) ++length;
    written = write(STDERR_FILENO, crash_path, length);
    written = write(STDERR_FILENO, "\n", 1);
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  uint64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

class Mutator {
 public:
  Mutator(std::vector<std::string> seeds, uint64_t seed)
      : seeds_(std::move(seeds)), random_(seed) {}

  std::string Next() {
    std::string bytes = AnySeed();
    for (int64_t changes = random_.Index(8); changes >= 0; --changes) Change(bytes);
    bytes.resize(std::min(bytes.size(), kMostBytes));
    return bytes;
  }

 private:
  size_t Index(size_t count) {
    return static_cast<size_t>(random_.Index(static_cast<int64_t>(count)));
  }
  const std::string& AnySeed() { return seeds_[Index(seeds_.size())]; }

  void Change(std::string& bytes) {
    if (bytes.empty()) {
      bytes.push_back(static_cast<char>(Index(256)));
      return;
    }
    const size_t at = Index(bytes.size());
    const size_t length = 1 + Index(std::min<size_t>(bytes.size() - at, 16));
    switch (Index(8)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << Index(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(Index(256));
        break;
      case 2:
        PutNumber(bytes, at);
        break;
      case 3:
        bytes.erase(at, length);
        break;
      case 4:
        bytes.insert(at, bytes.substr(at, length));
        break;
      case 5: {
        std::string noise;
        while (noise.size() < length) noise.push_back(static_cast<char>(Index(256)));
        bytes.insert(at, noise);
        break;
      }
      case 6:
        bytes.resize(at);
        break;
      default: {
        const std::string& other = AnySeed();
        if (!other.empty()) bytes = bytes.substr(0, at) + other.substr(Index(other.size()));
      }
    }
  }

  // A number that sizes and bounds are sensitive to, of 1, 2, 4 or 8 bytes.
  void PutNumber(std::string& bytes, size_t at) {
    constexpr std::array<uint64_t, 12> kNumbers = {0,
                                                   1,
                                                   0x7f,
                                                   0x80,
                                                   0xff,
                                                   0x7fff,
                                                   0xffff,
                                                   0x7fffffff,
                                                   0x80000000,
                                                   0xffffffff,
                                                   0x7fffffffffffffff,
                                                   0xffffffffffffffff};
    const uint64_t number = kNumbers[Index(kNumbers.size())];
    const size_t size = size_t{1} << Index(4);
    for (size_t i = 0; i < size && at + i < bytes.size(); ++i) {
      bytes[at + i] = static_cast<char>(number >> (8 * i));
    }
  }

  const std::vector<std::string> seeds_;
  Random random_;
};

class Mutation : public testing::TestWithParam<FuzzTarget> {};

TEST_P(Mutation, DoesNoHarm) {
  const FuzzTarget& target = GetParam();
  const uint64_t seed = FromEnvironment("NESTREC_FUZZ_SEED", std::random_device()());
  const double seconds =
      static_cast<double>(FromEnvironment("NESTREC_FUZZ_SECONDS", static_cast<uint64_t>(kSeconds)));
  absl::StrCat(testing::TempDir(), "/crash-", target.name, "-", seed)
      .copy(crash_path, sizeof(crash_path) - 1);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) {
    std::signal(signal, SaveAndDie);
  }
  Mutator mutator(SeedsOf(target), seed);
  target.run("");  // what is made once
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int64_t inputs = 0;
  for (; std::chrono::steady_clock::now() < end; ++inputs) {
    const std::string bytes = mutator.Next();
    running_bytes = bytes.data();
    running_size = bytes.size();
    alarm(kHangsAfter);
    target.run(bytes);
  }
  alarm(0);
  std::cout << target.name << ": " << inputs << " inputs, NESTREC_FUZZ_SEED=" << seed << std::endl;
}

INSTANTIATE_TEST_SUITE_P(AllTargets, Mutation, testing::ValuesIn(AllFuzzTargets()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nestrec
