// Times every tile shape of the wgmma kernels: what the constants in cuda/matrix/wgmma.cpp are set
// from. A star marks the shape that it chooses. WRONG: a result whose bits are not those of the
// first tile, though all of them add along k in the same order.
//
// Usage: mmcore_bench_wgmma_tiles [TOKENS ...]: shapes with so many rows, all without it
#include <array>
#include <cstdio>
#include <cstdlib>

#include "graph_timing.h"
#include "host/device.h"
#include "matrix/problem.h"
#include "matrix/wgmma_tiles.h"

namespace {

using namespace mmcore;         // NOLINT: a program of its own
using namespace mmcore::bench;  // NOLINT
using namespace mmcore::cuda;   // NOLINT

struct Shape {
  int64_t tokens, n, k;
  ops::Activation act = ops::Activation::kNone;
};

/// LLaVA-1.5's projector for 1, 8 and 32 pictures, a 7B decoder's layers.
constexpr std::array kShapes = {
    Shape{576, 4096, 1024, ops::Activation::kGeluErf},
    Shape{576, 4096, 4096},
    Shape{4608, 4096, 1024, ops::Activation::kGeluErf},
    Shape{4608, 4096, 4096},
    Shape{18432, 4096, 1024, ops::Activation::kGeluErf},
    Shape{18432, 4096, 4096},
    Shape{64, 22016, 4096},
    Shape{256, 12288, 4096},
    Shape{512, 4096, 4096},
    Shape{512, 12288, 4096},
    Shape{512, 22016, 4096},
    Shape{512, 4096, 11008},
    Shape{512, 32064, 4096},
    Shape{641, 4096, 4096},
    Shape{641, 22016, 4096},
    Shape{2048, 12288, 4096},
    Shape{2048, 4096, 11008},
};

struct Tile {
  const char* name;
  const WgmmaTile& shape;
  Status (*run)(const char*, const MatrixProblem&, int, cudaStream_t);
};
const std::array kTiles = {
    Tile{"256", kTile256, run_wgmma_256},
    Tile{"192", kTile192, run_wgmma_192},
    Tile{"176 wide", kTile176Wide, run_wgmma_176_wide},
    Tile{"144", kTile144, run_wgmma_144},
    Tile{"128 pair", kTile128Pair, run_wgmma_128_pair},
    Tile{"128", kTile128, run_wgmma_128},
    Tile{"64", kTile64, run_wgmma_64},
};

/// Values of size 1 without a pattern: zeros would let the chip run faster than it does in earnest.
void* noise(int64_t elements) {
  std::vector<uint16_t> values(static_cast<size_t>(elements));
  uint32_t state = 12345;
  for (uint16_t& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<uint16_t>(0x3f00u | (state >> 16 & 0x80ffu));  // +- 0.5 to 2
  }
  void* data = nullptr;
  must(cudaMalloc(&data, values.size() * 2));
  must(cudaMemcpy(data, values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  return data;
}

}  // namespace

int main(int argc, char** argv) {
  const auto facts = device_facts({DeviceType::kCuda, 0});
  if (!facts.ok() || facts.value()->capability != 90) {
    std::puts("no Hopper GPU here: nothing to time");
    return 0;
  }
  for (const Shape& s : kShapes) {
    const auto wanted = [&] {
      for (int i = 1; i < argc; ++i) {
        if (s.tokens == std::atoll(argv[i])) return true;
      }
      return argc == 1;
    };
    if (!wanted()) continue;
    MatrixProblem p{.dtype = DType::kBFloat16,
                    .x = noise(s.tokens * s.k),
                    .x_stride = s.k,
                    .w = noise(s.n * s.k),
                    .w_stride = s.k,
                    .bias = noise(s.n),
                    .out = noise(s.tokens * s.n),
                    .out_stride = s.n,
                    .rows = nullptr,
                    .out_rows = s.tokens,
                    .tokens = s.tokens,
                    .n = s.n,
                    .k = s.k,
                    .act = s.act};
    std::printf("[%5lld, %5lld] x %5lld:", static_cast<long long>(s.tokens),
                static_cast<long long>(s.k), static_cast<long long>(s.n));
    const auto flop = 2e-6 * static_cast<double>(s.tokens * s.n * s.k);
    const auto report = [&](const char* name, double us) {
      std::printf("\n    %-14s %7.1f us %4.0f TF", name, us, flop / us);
      std::fflush(stdout);
    };
    const auto result = [&] {
      std::vector<uint16_t> values(static_cast<size_t>(s.tokens * s.n));
      must(cudaMemcpy(values.data(), p.out, values.size() * 2, cudaMemcpyDeviceToHost));
      must(cudaMemset(p.out, 0, values.size() * 2));
      return values;
    };
    std::vector<uint16_t> expected;
    for (const Tile& tile : kTiles) {
      const auto run = [&](int, Stream stream) {
        return tile.run("linear", p, wgmma_blocks(tile.shape, p, *facts.value()),
                        stream_of(stream));
      };
      report(tile.name, graph_us(run, 32));
      if (expected.empty()) {
        expected = result();
      } else if (result() != expected) {
        std::printf(" WRONG");
      }
    }
    report("*", graph_us(
                    [&](int, Stream stream) {
                      return run_wgmma("linear", p, *facts.value(), stream_of(stream));
                    },
                    32));
    std::puts("");
    for (const void* data : {p.x, p.w, p.bias, static_cast<const void*>(p.out)}) {
      must(cudaFree(const_cast<void*>(data)));
    }
  }
  return 0;
}
