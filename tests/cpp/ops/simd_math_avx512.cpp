#include "ops/simd_math_vec.h"

namespace mmcore::ops::testing {

const SimdMath kSimdMathAvx512 = kSimdMath;

}  // namespace mmcore::ops::testing
