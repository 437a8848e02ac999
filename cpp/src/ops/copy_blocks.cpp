#include <algorithm>
#include <cstring>
#include <string>

#include "base/thread_pool.h"
#include "ops/cuda_backend.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {

Status copy_blocks(const TensorView& cache, const TensorView& pairs, Stream stream) {
  constexpr const char* kOp = "copy_blocks";
  ShapeCheck check(kOp);
  const auto n = check.dim("n");
  check.any_shape("cache", cache).contiguous_from(1);
  check.tensor("pairs", pairs, {n, 2}).dtype(DType::kInt64);
  if (check.ok()) check.require(cache.rank >= 1, "cache has rank 0, expected [B, ...]");
  MMCORE_RETURN_IF_ERROR(check.status());
  int64_t block_bytes = static_cast<int64_t>(size_of(cache.dtype));
  for (int axis = 1; axis < cache.rank; ++axis) block_bytes *= cache.size(axis);
  const int64_t stride = cache.stride(0) * static_cast<int64_t>(size_of(cache.dtype));
  if (cache.size(0) > 1 && stride < block_bytes) {
    check.fail("cache is written but its blocks overlap (stride " +
               std::to_string(cache.stride(0)) + " in axis 0)");
  }
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::copy_blocks(cache, pairs, stream);

  const int64_t count = check.size(n);
  for (int64_t i = 0; i < count && check.ok(); ++i) {
    const int64_t* pair = pairs.ptr<int64_t>() + i * pairs.stride(0);
    for (int side = 0; side < 2; ++side) {
      if (pair[side] >= 0 && pair[side] < cache.size(0)) continue;
      check.fail("pairs[" + std::to_string(i) + ", " + std::to_string(side) + "] is " +
                 std::to_string(pair[side]) + ", expected 0 to " +
                 std::to_string(cache.size(0) - 1));
    }
  }
  MMCORE_RETURN_IF_ERROR(check.status());

  // A pair may read what an earlier one wrote. Threads share the bytes of a block, not the pairs:
  // each copies its slice for all pairs in order.
  const int64_t grain = std::max<int64_t>(1024, (64 << 10) / std::max<int64_t>(1, count));
  parallel_for(block_bytes, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t* pair = pairs.ptr<int64_t>() + i * pairs.stride(0);
      if (pair[0] == pair[1]) continue;
      std::memcpy(cache.ptr<char>() + pair[1] * stride + begin,
                  cache.ptr<char>() + pair[0] * stride + begin, static_cast<size_t>(end - begin));
    }
  });
  return {};
}

}  // namespace mmcore::ops
