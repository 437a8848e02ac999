// A picture on its way from a request to the encoder: resized and cropped, still 8-bit.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "mmcore/media.h"

namespace mmcore::native {

class ImagePayload final : public MediaPayload {
 public:
  explicit ImagePayload(std::vector<uint8_t> pixels) : pixels_(std::move(pixels)) {}
  /// [height, width, 3]
  const std::vector<uint8_t>& pixels() const { return pixels_; }

 private:
  std::vector<uint8_t> pixels_;
};

}  // namespace mmcore::native
