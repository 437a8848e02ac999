#include "ops/attention/entry_check.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>

namespace mmcore::ops {

void check_attention_parameters(ShapeCheck& check, int64_t heads, int64_t kv_heads,
                                int64_t head_dim, float scale, float soft_cap, int32_t window) {
  if (!check.ok()) return;
  if (heads <= 0 || kv_heads <= 0 || heads % kv_heads != 0) {
    check.fail(std::to_string(heads) + " query heads cannot share " + std::to_string(kv_heads) +
               " key/value heads; expected a multiple of them");
  }
  if (std::find(std::begin(kHeadDims), std::end(kHeadDims), head_dim) == std::end(kHeadDims)) {
    std::string known;
    for (const int d : kHeadDims) known += (known.empty() ? "" : ", ") + std::to_string(d);
    check.fail("no kernel for head dim " + std::to_string(head_dim) + "; expected one of " + known);
  }
  if (!std::isfinite(scale)) {
    check.fail("scale is " + std::to_string(scale) + ", expected a finite number");
  }
  if (!std::isfinite(soft_cap) || soft_cap < 0) {
    check.fail("soft_cap is " + std::to_string(soft_cap) + ", expected 0 (none) or more");
  }
  if (window < 0) {
    check.fail("window is " + std::to_string(window) + ", expected 0 (no limit) or more");
  }
}

void check_starts(ShapeCheck& check, const char* name, const int32_t* starts, int64_t n,
                  int64_t rows) {
  const auto fail = [&](const std::string& what) { check.fail(std::string(name) + what); };
  if (starts[0] < 0) {
    fail("[0] is " + std::to_string(starts[0]) + ", expected at least 0");
  }
  for (int64_t i = 0; i < n; ++i) {
    if (starts[i] <= starts[i + 1]) continue;
    return fail(" descends from " + std::to_string(starts[i]) + " to " +
                std::to_string(starts[i + 1]) + " at entry " + std::to_string(i + 1));
  }
  if (starts[n] > rows) {
    fail(" ends at " + std::to_string(starts[n]) + ", past the last of " + std::to_string(rows) +
         " rows");
  }
}

}  // namespace mmcore::ops
