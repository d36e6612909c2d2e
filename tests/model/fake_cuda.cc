#include "tests/model/fake_cuda.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/library.h>
#include <torch/types.h>
#include <unistd.h>

#include <atomic>
#include <limits>

// The registry knows the hooks by this name.
struct CUDAHooks : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void initCUDA() const override {}
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(int64_t /*device*/) const override { return true; }
  int64_t current_device() const override { return 0; }
  int getNumGPUs() const override { return nestrec::kFakeCudaDevices; }
  // What the fallback draws from.
  const at::Generator& getDefaultCUDAGenerator(at::DeviceIndex /*device*/) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};
namespace at {
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

namespace nestrec {
namespace {

std::atomic<int64_t> operations = 0;
std::atomic<int64_t> bytes_in_use = 0;
std::atomic<int64_t> bytes_at_most = std::numeric_limits<int64_t>::max();
thread_local c10::DeviceIndex current_device = 0;

// The same pages twice: where the device's pointers lead, without access, and where the device's
// own operations reach them.
class Allocation {
 public:
  explicit Allocation(size_t bytes) : bytes_(bytes) {
    const int fd = memfd_create("device", MFD_CLOEXEC);
    TORCH_CHECK(fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0, "memfd_create");
    seen_ = mmap(nullptr, bytes, PROT_NONE, MAP_SHARED, fd, 0);
    own_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    TORCH_CHECK(seen_ != MAP_FAILED && own_ != MAP_FAILED, "mmap");
    bytes_in_use += static_cast<int64_t>(bytes);
  }
  ~Allocation() {
    munmap(seen_, bytes_);
    munmap(own_, bytes_);
    bytes_in_use -= static_cast<int64_t>(bytes_);
  }
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  void* seen() const { return seen_; }
  void* own() const { return own_; }

 private:
  const size_t bytes_;
  void* seen_;
  void* own_;
};

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) const override {
    const c10::Device device(c10::DeviceType::CUDA, current_device);
    if (bytes == 0) return {nullptr, device};
    if (bytes_in_use + static_cast<int64_t>(bytes) > bytes_at_most) {
      TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes,
                       " bytes");
    }
    auto* allocation = new Allocation(bytes);
    return {allocation->seen(), allocation,
            [](void* pointer) { delete static_cast<Allocation*>(pointer); }, device};
  }
};

DeviceAllocator allocator;
REGISTER_ALLOCATOR(c10::DeviceType::CUDA, &allocator)

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return {type(), current_device}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < kFakeCudaDevices, "CUDA error: invalid device ordinal");
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index()) current_device = device.index();
  }
  c10::Stream getStream(c10::Device device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return kFakeCudaDevices; }
};

// The tensor as the processor may read and write it.
torch::Tensor OnHost(const torch::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  const auto* allocation = static_cast<Allocation*>(tensor.storage().data_ptr().get_context());
  if (allocation == nullptr) return torch::empty_like(tensor, torch::kCPU);
  char* begin = static_cast<char*>(allocation->own()) +
                tensor.storage_offset() * static_cast<int64_t>(tensor.element_size());
  return torch::from_blob(begin, tensor.sizes(), tensor.strides(),
                          torch::dtype(tensor.scalar_type()));
}

torch::Tensor& Copy(torch::Tensor& to, const torch::Tensor& from, bool /*non_blocking*/) {
  OnHost(to).copy_(OnHost(from));
  return to;
}

torch::Tensor CopyFrom(const torch::Tensor& from, const torch::Tensor& to, bool /*non_blocking*/) {
  OnHost(to).copy_(OnHost(from));
  return to;
}

torch::Tensor CopyFromAndResize(const torch::Tensor& from, const torch::Tensor& to) {
  TORCH_CHECK(from.sizes() == to.sizes(), "a result of another size: ", from.sizes(), " for ",
              to.sizes());
  return CopyFrom(from, to, false);
}

torch::Tensor Empty(at::IntArrayRef size, c10::optional<at::ScalarType> type,
                    c10::optional<at::Layout> /*layout*/, c10::optional<at::Device> device,
                    c10::optional<bool> /*pin*/, c10::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                   c10::dtype_or_default(type), format);
}

torch::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride,
                           c10::optional<at::ScalarType> type, c10::optional<at::Layout> /*layout*/,
                           c10::optional<at::Device> device, c10::optional<bool> /*pin*/) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(size, stride, &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                           c10::dtype_or_default(type));
}

torch::Tensor AsStrided(const torch::Tensor& self, at::IntArrayRef size, at::IntArrayRef stride,
                        c10::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}

torch::Tensor View(const torch::Tensor& self, at::IntArrayRef size) {
  return at::native::view(self, size);
}

torch::Tensor ReshapeAlias(const torch::Tensor& self, at::IntArrayRef size,
                           at::IntArrayRef stride) {
  return at::native::_reshape_alias(self, size, stride);
}

torch::Tensor Unfold(const torch::Tensor& self, int64_t dimension, int64_t size, int64_t step) {
  return at::native::unfold(self, dimension, size, step);
}

// Refuses what a device would: operands of both kinds, but for numbers as tensors.
void Compute(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  for (const c10::IValue& argument : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (!argument.isTensor() || !argument.toTensor().defined()) continue;
    const torch::Tensor& tensor = argument.toTensor();
    TORCH_CHECK(tensor.is_cuda() || tensor.dim() == 0, op.schema().name(),
                ": Expected all tensors to be on the same device");
  }
  ++operations;
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&Compute>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", TORCH_FN(Empty));
  library.impl("empty_strided", TORCH_FN(EmptyStrided));
  library.impl("as_strided", TORCH_FN(AsStrided));
  library.impl("view", TORCH_FN(View));
  library.impl("_reshape_alias", TORCH_FN(ReshapeAlias));
  library.impl("unfold", TORCH_FN(Unfold));
  library.impl("copy_", TORCH_FN(Copy));
  library.impl("_copy_from", TORCH_FN(CopyFrom));
  library.impl("_copy_from_and_resize", TORCH_FN(CopyFromAndResize));
}

}  // namespace

C10_REGISTER_GUARD_IMPL(CUDA, DeviceGuard);

int64_t FakeCudaOperations() { return operations; }
void LimitFakeCudaMemory(int64_t bytes) { bytes_at_most = bytes; }

}  // namespace nestrec
