#include "mmcore/tensor.h"

namespace mmcore {

std::string describe(const TensorView& t) {
  if (!t.present) return "absent";
  std::string s = std::string(to_string(t.dtype)) + " [";
  for (int i = 0; i < t.rank; ++i) s += (i ? ", " : "") + std::to_string(t.size(i));
  s += t.device.type == DeviceType::kCuda ? "] cuda:" + std::to_string(t.device.index) : "] cpu";
  return s;
}

}  // namespace mmcore
