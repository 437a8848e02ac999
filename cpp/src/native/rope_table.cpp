#include "native/rope_table.h"

#include <cmath>
#include <numbers>
#include <vector>

namespace mmcore::native {

namespace {

// In float32 and in this order, as transformers computes them: angles of far positions show every
// difference in a frequency's last bit.
std::vector<float> frequencies(const RopeConfig& rope, int32_t dim) {
  std::vector<float> found;
  const auto factor = static_cast<float>(rope.factor);
  for (int32_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    float f = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
    if (rope.type == "linear") f /= factor;
    if (rope.type == "llama3") {
      const auto original = static_cast<float>(rope.original_positions);
      const auto low = static_cast<float>(rope.low_freq_factor);
      const auto high = static_cast<float>(rope.high_freq_factor);
      const float wavelength = 2 * std::numbers::pi_v<float> / f;
      // Short waves stay, long ones are slowed down, those between are blended.
      if (wavelength > original / low) {
        f /= factor;
      } else if (wavelength >= original / high) {
        const float smooth = (original / wavelength - low) / (high - low);
        f = (1 - smooth) * f / factor + smooth * f;
      }
    }
    found.push_back(f);
  }
  return found;
}

}  // namespace

OwnedTensor make_rope_table(const RopeConfig& rope, int32_t dim, int64_t positions) {
  const std::vector<float> f = frequencies(rope, dim);
  OwnedTensor table(DType::kFloat32, {positions, dim});
  auto* row = table.data<float>();
  for (int64_t p = 0; p < positions; ++p, row += dim) {
    for (size_t i = 0; i < f.size(); ++i) {
      const float angle = static_cast<float>(p) * f[i];
      row[i] = std::cos(angle);
      row[f.size() + i] = std::sin(angle);
    }
  }
  return table;
}

}  // namespace mmcore::native
