// Structs whose first field is their size, as the caller knows it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "mmcore/status.h"

namespace mmcore::c_api {

/// No struct is larger; a size above it was never set.
inline constexpr uint32_t kMaxStructSize = 4096;

/// What every caller's struct has at least: its size and one field of 4 bytes.
inline constexpr uint32_t kMinStructSize = 8;

inline Status check_size(const char* name, uint32_t size) {
  if (size >= kMinStructSize && size <= kMaxStructSize) return {};
  return Status::invalid_argument(std::string(name) + ".struct_size is " + std::to_string(size) +
                                  "; set it to sizeof(" + name + "), as its _init function does.");
}

/// Copies a caller's struct over `value`, which holds the defaults, as far as the caller knows it.
/// What a newer caller has behind that must be zero.
template <class T>
Status read_struct(const char* name, const T* given, T& value) {
  if (given == nullptr) return Status::invalid_argument(std::string(name) + " must not be NULL.");
  if (reinterpret_cast<uintptr_t>(given) % alignof(T) != 0)
    return Status::invalid_argument(std::string(name) + " is not aligned to " +
                                    std::to_string(alignof(T)) + " bytes.");
  const uint32_t size = given->struct_size;
  MMCORE_RETURN_IF_ERROR(check_size(name, size));
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (size_t i = sizeof(T); i < size; ++i)
    if (bytes[i] != 0)
      return Status::unsupported(std::string(name) +
                                 " has a field set that this version of mmcore does not know; it "
                                 "knows the first " +
                                 std::to_string(sizeof(T)) + " bytes.");
  std::memcpy(static_cast<void*>(&value), given, std::min<size_t>(size, sizeof(T)));
  value.struct_size = static_cast<uint32_t>(sizeof(T));
  return {};
}

/// Copies `value` into a caller's struct as far as that goes. The rest of a newer caller's is set
/// to zero.
template <class T>
Status write_struct(const char* name, const T& value, T* given, uint32_t size) {
  if (given == nullptr) return Status::invalid_argument(std::string(name) + " must not be NULL.");
  MMCORE_RETURN_IF_ERROR(check_size(name, size));
  std::memset(static_cast<void*>(given), 0, size);
  std::memcpy(static_cast<void*>(given), &value, std::min<size_t>(size, sizeof(T)));
  given->struct_size = size;
  return {};
}

}  // namespace mmcore::c_api
