// Layer: unit. Bytes are compared with a plain loop over the pairs.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "device_tensor.h"
#include "mmcore/ops.h"
#include "ops/rounding.h"

namespace mmcore::cuda {
namespace {

using ops::testing::random_size;
using ops::testing::Rng;
using Pairs = std::vector<std::pair<int64_t, int64_t>>;

class CopyBlocksGpu : public GpuTest {};

struct Cache {
  DType dtype;
  int64_t blocks;
  int64_t block;   // elements
  int64_t stride;  // elements, from block to block
};

void check(const Cache& c, const Pairs& pairs, Rng& rng) {
  const auto element = static_cast<int64_t>(size_of(c.dtype));
  DeviceTensor memory(c.dtype, {c.blocks, c.stride});
  std::vector<uint8_t> expected(static_cast<size_t>(memory.num_bytes()));
  std::generate(expected.begin(), expected.end(), [&] { return static_cast<uint8_t>(rng()); });
  memory.write(expected);
  TensorView cache = memory.view();
  cache.shape[1] = c.block;
  std::vector<int64_t> flat;
  for (const auto& [from, to] : pairs) {
    flat.push_back(from);
    flat.push_back(to);
    if (from < 0 || from >= c.blocks || to < 0 || to >= c.blocks) continue;
    const auto at = [&](int64_t b) { return expected.begin() + b * c.stride * element; };
    std::copy_n(std::vector<uint8_t>(at(from), at(from) + c.block * element).begin(),
                c.block * element, at(to));
  }
  const DeviceTensor list = DeviceTensor::from(flat, {static_cast<int64_t>(pairs.size()), 2});
  const Status status = ops::copy_blocks(cache, list);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_TRUE(memory.bytes() == expected);
}

Pairs random_pairs(Rng& rng, int64_t count, int64_t blocks) {
  Pairs pairs;
  for (int64_t i = 0; i < count; ++i) {
    pairs.emplace_back(random_size(rng, 0, blocks - 1), random_size(rng, 0, blocks - 1));
    if (rng() % 30 == 0)
      (rng() % 2 ? pairs.back().first : pairs.back().second) = rng() % 2 ? -1 : blocks;
  }
  return pairs;
}

TEST_F(CopyBlocksGpu, RandomPairs) {
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(300)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kUInt8, DType::kInt64};
    Cache c{.dtype = kTypes[rng() % 4], .blocks = random_size(rng, 1, 40), .block = 0, .stride = 0};
    c.block = rng() % 2 ? 16 * random_size(rng, 1, 70) : random_size(rng, 0, 900);
    c.stride = c.block + (rng() % 2 ? 0 : rng() % 2 ? 16 : 5);
    if (c.stride == 0) c.stride = 1;
    // Few blocks: many pairs read what others wrote.
    check(c, random_pairs(rng, random_size(rng, 0, 60), c.blocks), rng);
    if (HasFatalFailure()) return;
  }
}

TEST_F(CopyBlocksGpu, ChainsReduced) {
  Rng rng(1);
  const Cache c{.dtype = DType::kBFloat16, .blocks = 9, .block = 80, .stride = 80};
  check(c, {{0, 1}, {1, 2}, {2, 3}, {3, 0}}, rng);
  check(c, {{0, 1}, {2, 0}, {0, 2}, {5, 5}, {4, 1}, {8, 1}, {1, 8}}, rng);
  check(c, {{-1, 2}, {3, 9}}, rng);
  check(c, {}, rng);
}

}  // namespace
}  // namespace mmcore::cuda
