#include "native/resize.h"

#include <algorithm>
#include <cmath>

namespace mmcore::native {

namespace {

constexpr int kPrecisionBits = 22;  // of a weight: 8 bits of pixel and 2 of sum leave this of 32
constexpr int32_t kChannels = 3;

double weight_of(Filter filter, double x) {
  x = std::abs(x);
  if (filter == Filter::kBilinear) return x < 1.0 ? 1.0 - x : 0.0;
  constexpr double a = -0.5;
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// The input pixels [first, first + weights.size()) that make one output pixel.
struct Taps {
  int64_t first = 0;
  std::vector<int32_t> weights;
};

// Of outputs [begin, end) of an axis that goes from `in` to `out` pixels.
std::vector<Taps> taps_of(Filter filter, int64_t in, int64_t out, int64_t begin, int64_t end) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double widening = std::max(scale, 1.0);
  const double support = (filter == Filter::kBilinear ? 1.0 : 2.0) * widening;
  std::vector<Taps> taps(static_cast<size_t>(end - begin));
  std::vector<double> weights;
  for (int64_t o = begin; o < end; ++o) {
    Taps& tap = taps[static_cast<size_t>(o - begin)];
    if (in == out) {
      tap = {o, {1 << kPrecisionBits}};
      continue;
    }
    const double center = (static_cast<double>(o) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), in);
    weights.clear();
    double sum = 0.0;
    for (int64_t x = first; x < last; ++x) {
      weights.push_back(
          weight_of(filter, (static_cast<double>(x) - center + 0.5) * (1.0 / widening)));
      sum += weights.back();
    }
    tap.first = first;
    for (const double weight : weights) {
      const double fixed = (sum != 0.0 ? weight / sum : weight) * (1 << kPrecisionBits);
      tap.weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return taps;
}

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// One output pixel from input pixels that are `stride` bytes apart.
void blend(const Taps& taps, const uint8_t* in, int64_t stride, uint8_t* out) {
  constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);
  int32_t r = kHalf, g = kHalf, b = kHalf;
  for (const int32_t weight : taps.weights) {
    r += in[0] * weight;
    g += in[1] * weight;
    b += in[2] * weight;
    in += stride;
  }
  out[0] = to_byte(r);
  out[1] = to_byte(g);
  out[2] = to_byte(b);
}

}  // namespace

std::vector<uint8_t> resize(const ImageView& image, Filter filter, const ResizedWindow& window) {
  const int64_t row_bytes = int64_t{window.columns} * kChannels;
  std::vector<uint8_t> out(static_cast<size_t>(window.rows * row_bytes));
  // The part of the window that has pixels.
  const int64_t x0 = std::max<int64_t>(window.left, 0);
  const int64_t x1 = std::min(window.left + window.columns, window.width);
  const int64_t y0 = std::max<int64_t>(window.top, 0);
  const int64_t y1 = std::min(window.top + window.rows, window.height);
  if (x0 >= x1 || y0 >= y1) return out;
  const std::vector<Taps> columns = taps_of(filter, image.width, window.width, x0, x1);
  const std::vector<Taps> rows = taps_of(filter, image.height, window.height, y0, y1);

  // Columns of all input rows that some output row needs.
  int64_t first_row = rows.front().first, end_row = first_row;
  for (const Taps& tap : rows) {
    first_row = std::min(first_row, tap.first);
    end_row = std::max(end_row, tap.first + static_cast<int64_t>(tap.weights.size()));
  }
  const int64_t narrow_bytes = (x1 - x0) * kChannels;
  std::vector<uint8_t> narrow(static_cast<size_t>((end_row - first_row) * narrow_bytes));
  for (int64_t y = first_row; y < end_row; ++y) {
    const uint8_t* in = image.rgb + y * image.width * kChannels;
    uint8_t* to = narrow.data() + (y - first_row) * narrow_bytes;
    for (const Taps& tap : columns) {
      blend(tap, in + tap.first * kChannels, kChannels, to);
      to += kChannels;
    }
  }
  for (int64_t y = y0; y < y1; ++y) {
    const Taps& tap = rows[static_cast<size_t>(y - y0)];
    const uint8_t* in = narrow.data() + (tap.first - first_row) * narrow_bytes;
    uint8_t* to = out.data() + (y - window.top) * row_bytes + (x0 - window.left) * kChannels;
    for (int64_t x = 0; x < x1 - x0; ++x)
      blend(tap, in + x * kChannels, narrow_bytes, to + x * kChannels);
  }
  return out;
}

}  // namespace mmcore::native
