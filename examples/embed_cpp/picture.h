// Pictures as clients send them: PNG and JPEG files.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mmcore/native.h"
#include "mmcore/status.h"

namespace service {

struct PictureLimits {
  size_t max_bytes = size_t{8} << 20;      // of the file
  int64_t max_pixels = int64_t{16} << 20;  // width * height, looked at before anything is decoded
};

struct Picture {
  std::vector<uint8_t> rgb;
  int32_t width = 0;
  int32_t height = 0;
  mmcore::native::ImageView view() const { return {rgb.data(), width, height}; }
};

/// Decodes a PNG or JPEG file to 8-bit RGB. What is transparent is laid on white. Anything else,
/// anything broken and anything larger than `limits` is kMediaError.
mmcore::Result<Picture> decode_picture(std::span<const uint8_t> file, const PictureLimits& limits);

}  // namespace service
