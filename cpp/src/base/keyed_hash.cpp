#include "base/keyed_hash.h"

#include <random>

namespace mmcore {
namespace {

uint64_t mix(uint64_t x) {  // finalizer of splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

HashKey HashKey::from_seed(uint64_t seed) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
  return {mix(seed + kStep), mix(seed + 2 * kStep)};
}

HashKey HashKey::random() {
  std::random_device device;
  const auto draw = [&] { return uint64_t{device()} << 32 | device(); };
  const uint64_t k0 = draw();
  return {k0, draw()};
}

}  // namespace mmcore
