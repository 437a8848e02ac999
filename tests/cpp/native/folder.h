// A folder of files that a test writes.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace mmcore::native::testing {

/// The checkpoint that comes with mmcore.
inline std::string bundled() { return MMCORE_TINY_LLAVA; }

class Folder {
 public:
  Folder() {
    std::string name = ::testing::TempDir() + "mmcore_native_XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder for the test");
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(file(name), std::ios::binary) << bytes;
  }
  void copy_bundled() const {
    for (const auto& entry : std::filesystem::directory_iterator(bundled()))
      std::filesystem::copy(entry.path(), file(entry.path().filename().string()));
  }
  std::string read(const std::string& name) const {
    std::ifstream in(file(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  /// Replaces the first `from` in a file.
  void edit(const std::string& name, const std::string& from, const std::string& to) const {
    std::string text = read(name);
    const size_t at = text.find(from);
    ASSERT_NE(at, text.npos) << from << " is not in " << name;
    write(name, text.replace(at, from.size(), to));
  }

 private:
  std::string path_;
};

/// A safetensors file of this header and as many bytes of data.
inline std::string safetensors(const std::string& header, size_t data_bytes) {
  std::string file;
  for (size_t i = 0; i < 8; ++i) file += static_cast<char>(uint64_t{header.size()} >> (8 * i));
  return file + header + std::string(data_bytes, '\1');
}

}  // namespace mmcore::native::testing
