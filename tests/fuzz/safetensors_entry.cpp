#include "safetensors_entry.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "native/safetensors.h"

namespace mmcore::fuzz {
namespace {

Read g_read;

/// A file in memory that has a path.
class MemoryFile {
 public:
  MemoryFile() : file_(memfd_create("safetensors", MFD_CLOEXEC)) { check(file_ >= 0); }
  ~MemoryFile() { close(file_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(file_); }
  void write(const uint8_t* data, size_t size) const {
    check(ftruncate(file_, 0) == 0);
    check(pwrite(file_, data, size, 0) == static_cast<ssize_t>(size));
  }

 private:
  static void check(bool done) {
    if (!done) throw std::system_error(errno, std::generic_category(), "memory file");
  }
  int file_;
};

int64_t width_of(const std::string& dtype) {
  if (dtype.ends_with("64")) return 8;
  if (dtype.ends_with("32")) return 4;
  if (dtype.ends_with("16")) return 2;
  return 1;  // BOOL, U8, I8, F8_...
}

[[noreturn]] void fail(const std::string& name, const std::string& what) {
  throw std::logic_error("tensor '" + name + "' " + what);
}

void check_accepted(const native::SafetensorsFile& file, int64_t file_bytes) {
  int64_t bytes = 0;
  const uint8_t* first = nullptr;
  const uint8_t* end = nullptr;
  for (const auto& [name, tensor] : file.tensors()) {
    int64_t expected = width_of(tensor.dtype);
    for (const int64_t size : tensor.shape) expected *= size;
    if (tensor.bytes != expected) fail(name, "has other bytes than its shape takes");
    bytes += tensor.bytes;
    if (first == nullptr || tensor.data < first) first = tensor.data;
    if (end == nullptr || tensor.data + tensor.bytes > end) end = tensor.data + tensor.bytes;
    // Bytes that can't be read end the program here.
    for (int64_t i = 0; i < tensor.bytes; ++i) g_read.sum_of_bytes += tensor.data[i];
  }
  if (bytes > file_bytes - 8) fail("*", "take more bytes than the file has");
  // Without gap and overlap, those of all are those from the first to the last.
  if (end - first != bytes) fail("*", "overlap or leave gaps");
}

}  // namespace

void run_safetensors(const uint8_t* data, size_t size) {
  static const MemoryFile memory;
  memory.write(data, size);
  const Result<native::SafetensorsFile> file = native::SafetensorsFile::open(memory.path());
  if (!file.ok()) {
    ++g_read.refused;
    if (file.status().code() != StatusCode::kInvalidArgument || file.status().message().empty())
      throw std::logic_error("refused without a reason: " + file.status().message());
    return;
  }
  ++g_read.accepted;
  g_read.tensors += static_cast<int64_t>(file.value().tensors().size());
  check_accepted(file.value(), static_cast<int64_t>(size));
}

Read files_read() { return g_read; }

}  // namespace mmcore::fuzz
