// Memory, streams, events and graphs for hosts: gpu.h on the CUDA runtime.
#include "mmcore/gpu.h"

#include <cuda_runtime_api.h>

#include "host/device.h"

namespace mmcore::gpu {
namespace {

using cuda::cuda_status;
using cuda::DeviceGuard;
using cuda::stream_of;

/// As cuda_status, and takes the error from the runtime, where the next launch would find it.
Status told(const char* what, cudaError_t error) {
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  return cuda_status(what, error);
}

std::string name_of(Device device) { return "cuda:" + std::to_string(device.index); }

Status no_memory(const std::string& where, Device device, int64_t bytes) {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) static_cast<void>(cudaGetLastError());
  std::string message = where + " has no room for " + std::to_string(bytes) + " bytes";
  if (where == name_of(device))
    message += ": " + std::to_string(free) + " of " + std::to_string(total) + " are free";
  return Status::unservable(message);
}

cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

}  // namespace

int32_t device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());
  return 0;
}

Result<Properties> properties(Device device) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return Status::unsupported(std::string("there is no GPU that can be used: ") +
                               cudaGetErrorString(error) + "; use the device cpu");
  }
  if (device.type != DeviceType::kCuda || device.index < 0 || device.index >= count) {
    return Status::unsupported(
        name_of(device) + " does not exist; there " +
        (count == 1 ? "is 1 GPU" : "are " + std::to_string(count) + " GPUs") + "; use " +
        (count == 0 ? "" : "cuda:0 to cuda:" + std::to_string(count - 1) + " or ") +
        "the device cpu");
  }
  const auto facts = cuda::device_facts(device);
  if (!facts.ok()) return facts.status();
  const DeviceGuard guard(device);
  cudaDeviceProp found{};
  MMCORE_RETURN_IF_ERROR(
      told("cudaGetDeviceProperties", cudaGetDeviceProperties(&found, device.index)));
  size_t free = 0, total = 0;
  MMCORE_RETURN_IF_ERROR(told("cudaMemGetInfo", cudaMemGetInfo(&free, &total)));
  return Properties{.name = found.name,
                    .capability = facts.value()->capability,
                    .multiprocessors = facts.value()->multiprocessors,
                    .total_bytes = static_cast<int64_t>(total),
                    .free_bytes = static_cast<int64_t>(free)};
}

Result<Memory> Memory::on_device(Device device, int64_t bytes) {
  Memory memory;
  if (bytes <= 0) return memory;
  const DeviceGuard guard(device);
  const auto size = static_cast<size_t>(bytes);
  const cudaError_t error = cudaMalloc(&memory.data_, size);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    memory.data_ = nullptr;
    return no_memory(name_of(device), device, bytes);
  }
  MMCORE_RETURN_IF_ERROR(told("cudaMalloc", error));
  memory.bytes_ = bytes;
  memory.device_ = device;
  MMCORE_RETURN_IF_ERROR(told("cudaMemset", cudaMemset(memory.data_, 0, size)));
  // Streams of this file do not wait for the default one.
  MMCORE_RETURN_IF_ERROR(told("cudaMemset", cudaStreamSynchronize(nullptr)));
  return memory;
}

Result<Memory> Memory::pinned(Device device, int64_t bytes) {
  Memory memory;
  if (bytes <= 0) return memory;
  const DeviceGuard guard(device);
  const cudaError_t error =
      cudaHostAlloc(&memory.data_, static_cast<size_t>(bytes), cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    memory.data_ = nullptr;
    return no_memory("pinned memory of the host", device, bytes);
  }
  MMCORE_RETURN_IF_ERROR(told("cudaHostAlloc", error));
  memory.bytes_ = bytes;
  memory.device_ = device;
  memory.pinned_ = true;
  return memory;
}

// At the process's end the runtime may be gone already; then its objects are, too. That holds for
// all destructors here.
Memory::~Memory() {
  if (data_ == nullptr) return;
  const DeviceGuard guard(device_);
  static_cast<void>(pinned_ ? cudaFreeHost(data_) : cudaFree(data_));
}

Result<OwnedStream> OwnedStream::make(Device device) {
  const DeviceGuard guard(device);
  cudaStream_t stream = nullptr;
  MMCORE_RETURN_IF_ERROR(
      told("cudaStreamCreate", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)));
  OwnedStream made;
  made.stream_ = {stream};
  made.device_ = device;
  return made;
}

OwnedStream::~OwnedStream() {
  if (stream_.handle == nullptr) return;
  const DeviceGuard guard(device_);
  static_cast<void>(cudaStreamDestroy(stream_of(stream_)));
}

Status OwnedStream::wait() const {
  const DeviceGuard guard(device_);
  return told("cudaStreamSynchronize", cudaStreamSynchronize(stream_of(stream_)));
}

Result<Event> Event::make(Device device) {
  const DeviceGuard guard(device);
  cudaEvent_t event = nullptr;
  MMCORE_RETURN_IF_ERROR(
      told("cudaEventCreate", cudaEventCreateWithFlags(&event, cudaEventDisableTiming)));
  Event made;
  made.handle_ = event;
  made.device_ = device;
  return made;
}

Event::~Event() {
  if (handle_ == nullptr) return;
  const DeviceGuard guard(device_);
  static_cast<void>(cudaEventDestroy(event_of(handle_)));
}

Status Event::record(Stream stream) const {
  const DeviceGuard guard(device_);
  return told("cudaEventRecord", cudaEventRecord(event_of(handle_), stream_of(stream)));
}

Status Event::wait() const {
  const DeviceGuard guard(device_);
  return told("cudaEventSynchronize", cudaEventSynchronize(event_of(handle_)));
}

Result<Graph> Graph::capture(Device device, Stream stream, const std::function<Status()>& work) {
  const DeviceGuard guard(device);
  const cudaStream_t queue = stream_of(stream);
  MMCORE_RETURN_IF_ERROR(told("cudaStreamBeginCapture",
                              cudaStreamBeginCapture(queue, cudaStreamCaptureModeThreadLocal)));
  cudaGraph_t recorded = nullptr;
  Status worked;
  cudaError_t ended = cudaSuccess;
  try {
    worked = work();
    ended = cudaStreamEndCapture(queue, &recorded);
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(queue, &recorded));
    static_cast<void>(cudaGetLastError());
    if (recorded != nullptr) static_cast<void>(cudaGraphDestroy(recorded));
    throw;
  }
  cudaGraphExec_t runnable = nullptr;
  Status made = told("cudaStreamEndCapture", ended);
  if (made.ok() && worked.ok())
    made = told("cudaGraphInstantiate", cudaGraphInstantiate(&runnable, recorded, 0));
  if (recorded != nullptr) static_cast<void>(cudaGraphDestroy(recorded));
  MMCORE_RETURN_IF_ERROR(worked);
  MMCORE_RETURN_IF_ERROR(made);
  Graph graph;
  graph.handle_ = runnable;
  graph.device_ = device;
  return graph;
}

Graph::~Graph() {
  if (handle_ == nullptr) return;
  const DeviceGuard guard(device_);
  static_cast<void>(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(handle_)));
}

Status Graph::launch(Stream stream) const {
  const DeviceGuard guard(device_);
  return told("cudaGraphLaunch",
              cudaGraphLaunch(static_cast<cudaGraphExec_t>(handle_), stream_of(stream)));
}

Status copy(Device device, void* to, const void* from, int64_t bytes, Stream stream) {
  if (bytes <= 0) return {};
  const DeviceGuard guard(device);
  return told("cudaMemcpyAsync", cudaMemcpyAsync(to, from, static_cast<size_t>(bytes),
                                                 cudaMemcpyDefault, stream_of(stream)));
}

Status copy_rows(Device device, void* to, int64_t to_stride, const void* from, int64_t from_stride,
                 int64_t row_bytes, int64_t rows, Stream stream) {
  if (row_bytes <= 0 || rows <= 0) return {};
  const DeviceGuard guard(device);
  const auto size = [](int64_t n) { return static_cast<size_t>(n); };
  return told("cudaMemcpy2DAsync",
              cudaMemcpy2DAsync(to, size(to_stride), from, size(from_stride), size(row_bytes),
                                size(rows), cudaMemcpyDefault, stream_of(stream)));
}

Status fill_zeros(Device device, void* to, int64_t bytes, Stream stream) {
  if (bytes <= 0) return {};
  const DeviceGuard guard(device);
  return told("cudaMemsetAsync",
              cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream_of(stream)));
}

}  // namespace mmcore::gpu
