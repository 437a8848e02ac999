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

// Input pixels of an axis that some output needs: [first, end).
struct Reach {
  int64_t first, end;
};

Reach reach_of(const std::vector<Taps>& taps) {
  Reach reach = {taps.front().first, taps.front().first};
  for (const Taps& tap : taps) {
    reach.first = std::min(reach.first, tap.first);
    reach.end = std::max(reach.end, tap.first + static_cast<int64_t>(tap.weights.size()));
  }
  return reach;
}

// Some columns and rows of a picture, from (x0, y0) on.
struct Pixels {
  const uint8_t* data;
  int64_t row_bytes;
  int64_t x0, y0;
  const uint8_t* at(int64_t x, int64_t y) const {
    return data + (y - y0) * row_bytes + (x - x0) * kChannels;
  }
};

void resize_columns(const Pixels& in, const Reach& rows, const std::vector<Taps>& columns,
                    uint8_t* out, int64_t out_row_bytes) {
  for (int64_t y = rows.first; y < rows.end; ++y, out += out_row_bytes) {
    uint8_t* to = out;
    for (const Taps& tap : columns) {
      blend(tap, in.at(tap.first, y), kChannels, to);
      to += kChannels;
    }
  }
}

void resize_rows(const Pixels& in, const Reach& columns, const std::vector<Taps>& rows,
                 uint8_t* out, int64_t out_row_bytes) {
  for (const Taps& tap : rows) {
    uint8_t* to = out;
    for (int64_t x = columns.first; x < columns.end; ++x) {
      blend(tap, in.at(x, tap.first), in.row_bytes, to);
      to += kChannels;
    }
    out += out_row_bytes;
  }
}

}  // namespace

std::vector<uint8_t> resize(const ImageView& image, Filter filter, const ResizedWindow& window) {
  const int64_t out_row_bytes = int64_t{window.columns} * kChannels;
  std::vector<uint8_t> out(static_cast<size_t>(window.rows * out_row_bytes));
  // The part of the window that has pixels.
  const int64_t x0 = std::max<int64_t>(window.left, 0);
  const int64_t x1 = std::min(window.left + window.columns, window.width);
  const int64_t y0 = std::max<int64_t>(window.top, 0);
  const int64_t y1 = std::min(window.top + window.rows, window.height);
  if (x0 >= x1 || y0 >= y1) return out;
  const std::vector<Taps> columns = taps_of(filter, image.width, window.width, x0, x1);
  const std::vector<Taps> rows = taps_of(filter, image.height, window.height, y0, y1);
  const Reach column_reach = reach_of(columns), row_reach = reach_of(rows);
  const Pixels input = {image.rgb, image.width * kChannels, 0, 0};
  uint8_t* corner = out.data() + (y0 - window.top) * out_row_bytes + (x0 - window.left) * kChannels;

  // Rounding in between makes the order of the passes visible. Pillow, from version 13 on, begins
  // with the rows where the height loses more than twice as many pixels as the width.
  const int64_t lost_rows = image.height - window.height, lost_columns = image.width - window.width;
  if (lost_rows > 0 && lost_rows > 2 * lost_columns) {
    const int64_t row_bytes = (column_reach.end - column_reach.first) * kChannels;
    std::vector<uint8_t> flat(static_cast<size_t>((y1 - y0) * row_bytes));
    resize_rows(input, column_reach, rows, flat.data(), row_bytes);
    resize_columns({flat.data(), row_bytes, column_reach.first, 0}, {0, y1 - y0}, columns, corner,
                   out_row_bytes);
  } else {
    const int64_t row_bytes = (x1 - x0) * kChannels;
    std::vector<uint8_t> narrow(static_cast<size_t>((row_reach.end - row_reach.first) * row_bytes));
    resize_columns(input, row_reach, columns, narrow.data(), row_bytes);
    resize_rows({narrow.data(), row_bytes, 0, row_reach.first}, {0, x1 - x0}, rows, corner,
                out_row_bytes);
  }
  return out;
}

}  // namespace mmcore::native
