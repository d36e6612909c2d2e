#include "base/mapping_guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>

namespace nestrec {
namespace {

// A signal handler can use nothing else than what is static, and takes no lock.
struct Slot {
  // 0: free. Written last when a slot is taken, and first when it is given back.
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> lost{false};
};
constexpr size_t kSlots = 4096;
std::array<Slot, kSlots> slots;
std::atomic<size_t> slots_used{0};  // those from here on were never taken
std::atomic<int> lost_mappings{0};  // that are registered
std::mutex slots_mutex;             // of those who take slots and give them back
struct sigaction action_before;
uintptr_t page_bytes = 4096;

Slot* Find(uintptr_t address) {
  const size_t used = slots_used.load(std::memory_order_acquire);
  for (size_t i = 0; i < used; ++i) {
    const uintptr_t begin = slots[i].begin.load(std::memory_order_acquire);
    if (begin != 0 && address >= begin && address < slots[i].end.load(std::memory_order_relaxed)) {
      return &slots[i];
    }
  }
  return nullptr;
}

void Mark(Slot& slot) {
  if (!slot.lost.exchange(true)) lost_mappings.fetch_add(1);
}

void OnBusError(int signal, siginfo_t* info, void* /*context*/) {
  const int error = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (Slot* const slot = Find(address)) {
    // All that follows: a mapping per page would run into the system's limit of mappings. mmap is
    // one system call here.
    const uintptr_t begin = address / page_bytes * page_bytes;
    const uintptr_t end = slot->end.load(std::memory_order_relaxed);
    if (mmap(reinterpret_cast<void*>(begin), end - begin, PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED) {
      Mark(*slot);
      errno = error;
      return;
    }
  }
  // The access is made again when this returns, and then somebody else's to handle.
  sigaction(signal, &action_before, nullptr);
  errno = error;
}

}  // namespace

void GuardMappings() {
  static std::once_flag once;
  std::call_once(once, [] {
    page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action = {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &action_before);
  });
}

void RegisterMapping(const void* data, size_t size) {
  if (size == 0) return;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const std::lock_guard lock(slots_mutex);
  const size_t used = slots_used.load(std::memory_order_relaxed);
  for (size_t i = 0; i < kSlots; ++i) {
    Slot& slot = slots[i];
    if (slot.begin.load(std::memory_order_relaxed) != 0) continue;
    slot.lost.store(false, std::memory_order_relaxed);
    slot.end.store(begin + size, std::memory_order_relaxed);
    slot.begin.store(begin, std::memory_order_release);
    if (i >= used) slots_used.store(i + 1, std::memory_order_release);
    return;
  }
}

void UnregisterMapping(const void* data) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const std::lock_guard lock(slots_mutex);
  const size_t used = slots_used.load(std::memory_order_relaxed);
  for (size_t i = 0; i < used; ++i) {
    Slot& slot = slots[i];
    if (slot.begin.load(std::memory_order_relaxed) != begin) continue;
    slot.begin.store(0, std::memory_order_release);
    if (slot.lost.exchange(false)) lost_mappings.fetch_sub(1);
    return;
  }
}

bool AnyLostBytes() { return lost_mappings.load(std::memory_order_acquire) != 0; }

bool LostBytes(const void* address) {
  if (!AnyLostBytes()) return false;
  const Slot* const slot = Find(reinterpret_cast<uintptr_t>(address));
  return slot != nullptr && slot->lost.load(std::memory_order_acquire);
}

void MarkLost(const void* address) {
  if (Slot* const slot = Find(reinterpret_cast<uintptr_t>(address))) Mark(*slot);
}

}  // namespace nestrec
