// Resampling of 8-bit pictures with Pillow's results, byte for byte: filters that widen when a
// picture shrinks, weights in fixed point, columns first and rows second with rounding in between.
#pragma once

#include <cstdint>
#include <vector>

#include "mmcore/native.h"

namespace mmcore::native {

enum class Filter : int32_t { kBilinear = 2, kBicubic = 3 };  // numbered as Pillow does

/// A window of a picture that has been resized to width x height; it may reach over the edges.
struct ResizedWindow {
  int64_t width = 0, height = 0;  // of the whole resized picture
  int64_t left = 0, top = 0;
  int32_t columns = 0, rows = 0;
};

/// Gives the window's pixels, R, G, B; those outside of the picture are 0. Only what the window
/// needs is computed.
std::vector<uint8_t> resize(const ImageView& image, Filter filter, const ResizedWindow& window);

}  // namespace mmcore::native
