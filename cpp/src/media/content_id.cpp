#include <array>

#include "base/sha256.h"
#include "mmcore/media.h"

namespace mmcore {

ContentId content_id(std::span<const std::string_view> frames) {
  Sha256 hash;
  for (const std::string_view frame : frames) {
    std::array<uint8_t, 8> length;
    for (size_t i = 0; i < length.size(); ++i)
      length[i] = static_cast<uint8_t>(uint64_t{frame.size()} >> (8 * i));
    hash.update(length);
    hash.update({reinterpret_cast<const uint8_t*>(frame.data()), frame.size()});
  }
  return {hash.finish()};
}

}  // namespace mmcore
