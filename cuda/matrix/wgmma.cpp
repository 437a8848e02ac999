// Which wgmma tile a shape gets: the one whose last wave wastes least.
#include <algorithm>
#include <array>
#include <cstdint>

#include "matrix/alignment.h"
#include "matrix/problem.h"
#include "matrix/wgmma_tiles.h"

namespace mmcore::cuda {
namespace {

struct Choice {
  const WgmmaTile& tile;
  /// Time of a tile beyond what the tensor cores need at their best.
  double slowdown;
  Status (*run)(const char*, const MatrixProblem&, int, cudaStream_t);
};

// As benchmarks/cuda/wgmma_tiles.cpp finds them on an H100.
const std::array kChoices = {
    Choice{kTile256, 1.0, run_wgmma_256},
    Choice{kTile192, 1.0, run_wgmma_192},
    Choice{kTile176Wide, 1.0, run_wgmma_176_wide},
    Choice{kTile144, 1.07, run_wgmma_144},
    Choice{kTile128Pair, 1.09, run_wgmma_128_pair},
    Choice{kTile128, 1.12, run_wgmma_128},
    Choice{kTile64, 1.75, run_wgmma_64},
};

/// Clusters that run side by side. One of four takes a whole group of four multiprocessors, of
/// which an H100 lacks one here and there.
int64_t slots(const WgmmaTile& tile, int multiprocessors) {
  const int cluster = tile.cluster_f * tile.cluster_t;
  const int64_t all = std::max(1, multiprocessors / cluster);
  return cluster > 2 ? std::max<int64_t>(1, all - all / 33) : all;
}

/// In units of a multiprocessor's cycles.
double estimate(const Choice& choice, const MatrixProblem& p, int multiprocessors) {
  const WgmmaTiles tiles = tiles_of(choice.tile, p.tokens, p.n);
  const int64_t side_by_side = slots(choice.tile, multiprocessors);
  const double waves = static_cast<double>((tiles.f * tiles.t + side_by_side - 1) / side_by_side);
  constexpr double kCyclesPerSum = 64.0 / 2048.0;  // of a step of 64 along k
  const double steps = static_cast<double>((p.k + 63) / 64);
  const double sums = static_cast<double>(choice.tile.features) * choice.tile.tokens;
  const double product = steps * sums * kCyclesPerSum * choice.slowdown;
  const double store = sums / 128.0 * (p.act == ops::Activation::kNone ? 6.0 : 20.0);
  return choice.tile.turns ? waves * product + store : waves * (product + store);
}

}  // namespace

int wgmma_blocks(const WgmmaTile& tile, const MatrixProblem& p, const DeviceFacts& facts) {
  const WgmmaTiles tiles = tiles_of(tile, p.tokens, p.n);
  const int64_t clusters = std::min(tiles.f * tiles.t, slots(tile, facts.multiprocessors));
  return static_cast<int>(clusters) * tile.cluster_f * tile.cluster_t;
}

bool fits_wgmma(const MatrixProblem& p, const DeviceFacts& facts) {
  return facts.capability == 90 && p.dtype != DType::kFloat32 && p.k >= 1 && p.n % 8 == 0 &&
         p.x_stride >= p.k && p.w_stride >= p.k && rows_aligned16(p.x, p.x_stride, 2) &&
         rows_aligned16(p.w, p.w_stride, 2) && rows_aligned16(p.out, p.out_stride, 2);
}

Status run_wgmma(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
                 cudaStream_t stream) {
  const Choice* best = nullptr;
  double least = 0;
  for (const Choice& choice : kChoices) {
    const double cycles = estimate(choice, p, facts.multiprocessors);
    if (best == nullptr || cycles < least) {
      best = &choice;
      least = cycles;
    }
  }
  return best->run(op, p, wgmma_blocks(best->tile, p, facts), stream);
}

}  // namespace mmcore::cuda
