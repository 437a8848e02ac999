#include "ops/cache_scale.h"

#include <cmath>
#include <string>

namespace mmcore::ops {
namespace {

void check_scale(ShapeCheck& check, const char* name, DType cache, float scale) {
  // 1 / scale has to be a float as well.
  if (!(scale >= 0x1p-126f) || !std::isfinite(scale)) {
    check.fail(std::string(name) + " is " + std::to_string(scale) +
               ", expected a finite number above 0");
  } else if (cache != DType::kFloat8E4M3 && scale != 1.0f) {
    check.fail(std::string(name) + " is " + std::to_string(scale) + " for a cache of " +
               to_string(cache) + ", expected 1; only a float8_e4m3fn cache is scaled");
  }
}

}  // namespace

void check_cache_scales(ShapeCheck& check, DType cache, float k_scale, float v_scale) {
  if (!check.ok()) return;
  check_scale(check, "k_scale", cache, k_scale);
  check_scale(check, "v_scale", cache, v_scale);
}

}  // namespace mmcore::ops
