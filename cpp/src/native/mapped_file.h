// A file as memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "mmcore/status.h"

namespace mmcore::native {

/// Maps a file read-only for as long as it lives.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_;
  size_t size_;
};

/// Gives the memory of whole pages in `bytes` of a mapped file back, for a while that they are not
/// read: they would come from the file again.
void let_go(std::span<const uint8_t> bytes);

/// The last part of a path: messages name files, not places of the host.
std::string file_name(const std::string& path);

}  // namespace mmcore::native
