// Equality with Pillow is tests/python/native's; here what must hold for any resize.
#include "native/resize.h"

#include <gtest/gtest.h>

#include <random>

namespace mmcore::native {
namespace {

struct Picture {
  Picture(int32_t w, int32_t h, uint32_t seed) : width(w), height(h) {
    std::mt19937 random(seed);
    for (int32_t i = 0; i < 3 * w * h; ++i) rgb.push_back(static_cast<uint8_t>(random()));
  }
  ImageView view() const { return {rgb.data(), width, height}; }
  int32_t width, height;
  std::vector<uint8_t> rgb;
};

ResizedWindow whole(int32_t width, int32_t height) {
  return {.width = width, .height = height, .columns = width, .rows = height};
}

TEST(Resize, same_size_changes_nothing) {
  const Picture picture(13, 7, 1);
  EXPECT_EQ(resize(picture.view(), Filter::kBicubic, whole(13, 7)), picture.rgb);
}

TEST(Resize, one_colour_stays_that_colour) {
  Picture picture(9, 31, 0);
  for (size_t i = 0; i < picture.rgb.size(); ++i) picture.rgb[i] = i % 3 == 0 ? 255 : 7;
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
    const auto out = resize(picture.view(), filter, whole(20, 5));
    for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], i % 3 == 0 ? 255 : 7) << i;
  }
}

TEST(Resize, a_window_is_a_piece_of_the_whole_and_black_outside) {
  constexpr int32_t sizes[][4] = {{40, 30, 17, 50}, {5, 90, 30, 31}, {64, 20, 8, 6}, {1, 1, 9, 9}};
  for (const auto& [w, h, to_w, to_h] : sizes) {
    const Picture picture(w, h, 3);
    const auto all = resize(picture.view(), Filter::kBicubic, whole(to_w, to_h));
    for (const int64_t left : {-3, 0, 2, 200})
      for (const int64_t top : {-2, 0, 5}) {
        const ResizedWindow window = {to_w, to_h, left, top, 7, 11};
        const auto out = resize(picture.view(), Filter::kBicubic, window);
        ASSERT_EQ(out.size(), size_t{7 * 11 * 3});
        for (int64_t y = 0; y < 11; ++y)
          for (int64_t x = 0; x < 21; ++x) {
            const int64_t column = left + x / 3, row = top + y;
            const bool inside = column >= 0 && column < to_w && row >= 0 && row < to_h;
            const auto at = static_cast<size_t>((row * to_w + column) * 3 + x % 3);
            ASSERT_EQ(out[static_cast<size_t>(y * 21 + x)], inside ? all[at] : 0)
                << w << "x" << h << " at " << column << ", " << row;
          }
      }
  }
}

TEST(Resize, a_long_picture_takes_the_memory_of_the_window_only) {
  const Picture picture(100000, 1, 5);
  // 100 times as large it would have 30 GB.
  const ResizedWindow window = {int64_t{100000} * 100, 100, int64_t{50000} * 100, 0, 100, 100};
  EXPECT_EQ(resize(picture.view(), Filter::kBicubic, window).size(), size_t{30000});
}

}  // namespace
}  // namespace mmcore::native
