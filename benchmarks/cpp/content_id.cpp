// Times SHA-256 over the pixels of pictures, which is what naming an item by its content costs.
#include <cstdio>
#include <vector>

#include "base/sha256.h"
#include "timing.h"

namespace {

using namespace mmcore;  // NOLINT: a program of one file

constexpr int kRounds = 25;

void measure(const char* what, Sha256Blocks blocks, size_t bytes) {
  std::vector<uint8_t> pixels(bytes);
  for (size_t i = 0; i < bytes; ++i) pixels[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  Sha256 reference(sha256_blocks_scalar);
  reference.update(pixels);
  const Sha256::Digest expected = reference.finish();
  std::vector<double> us;
  for (int round = 0; round < kRounds; ++round) {
    const double begin = bench::now_us();
    Sha256 hash(blocks);
    hash.update(pixels);
    const Sha256::Digest digest = hash.finish();
    us.push_back(bench::now_us() - begin);
    if (digest != expected) std::printf("wrong digest\n");
  }
  std::printf("%-18s %10zu | %9.1f us | %7.0f MB/s\n", what, bytes, bench::median(us),
              static_cast<double>(bytes) / bench::median(us));
}

}  // namespace

int main() {
  std::printf("SHA-256, bytes, median of %d rounds; %s\n", kRounds, bench::cpu_name().c_str());
  for (const size_t bytes : {size_t{1024}, size_t{336 * 336 * 3}, size_t{2048 * 2048 * 3}}) {
    measure("plain", sha256_blocks_scalar, bytes);
    if (has_sha_instructions()) measure("SHA instructions", fastest_sha256_blocks(), bytes);
  }
  return 0;
}
