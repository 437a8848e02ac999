// gpu.h of a build without CUDA: no GPU, and whatever needs one says why.
#include "mmcore/gpu.h"

namespace mmcore::gpu {
namespace {

Status absent() {
  return Status::unsupported(
      "this build of mmcore has no CUDA kernels; use the device cpu or build mmcore with "
      "MMCORE_CUDA=on");
}

}  // namespace

int32_t device_count() { return 0; }
Result<Properties> properties(Device) { return absent(); }

Result<Memory> Memory::on_device(Device, int64_t) { return absent(); }
Result<Memory> Memory::pinned(Device, int64_t) { return absent(); }
Memory::~Memory() = default;

Result<OwnedStream> OwnedStream::make(Device) { return absent(); }
OwnedStream::~OwnedStream() = default;
Status OwnedStream::wait() const { return absent(); }

Result<Event> Event::make(Device) { return absent(); }
Event::~Event() = default;
Status Event::record(Stream) const { return absent(); }
Status Event::wait() const { return absent(); }

Result<Graph> Graph::capture(Device, Stream, const std::function<Status()>&) { return absent(); }
Graph::~Graph() = default;
Status Graph::launch(Stream) const { return absent(); }

Status copy(Device, void*, const void*, int64_t, Stream) { return absent(); }
Status copy_rows(Device, void*, int64_t, const void*, int64_t, int64_t, int64_t, Stream) {
  return absent();
}
Status fill_zeros(Device, void*, int64_t, Stream) { return absent(); }

}  // namespace mmcore::gpu
