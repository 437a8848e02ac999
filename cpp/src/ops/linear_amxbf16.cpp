// bfloat16 on AMX: 16 x 16 results at a time in tile registers.
//
// Weights are the left operand and are read where they lie, 16 rows of 32 elements a tile; packed x
// is the right operand, whose layout (pairs along k side by side) is that of linear_kernels.h. All
// numbers of tokens go by blocks: the tiles are so fast that memory is the limit when there are
// few.
#include <immintrin.h>

#include "ops/linear_block_vec.h"
#include "ops/linear_pairs_vec.h"
#include "ops/simd/tile_registers.h"

namespace mmcore::ops {
namespace simd {
namespace {

struct TileMath : PairMath {
  static constexpr int64_t kUnitStep = 16;  // a tile's row: 32 elements
};

constexpr int64_t kTile = 16;
constexpr int64_t kRows = 2 * kTile;   // of weights that go together
constexpr int64_t kStepElements = 32;  // of k in one step
constexpr int64_t kStepBytes = 64;
constexpr int64_t kSteps = 64;  // of k between two visits of the results: a page of each row

/// Weights of one group: 32 rows from `w` on, `stride` bytes apart.
struct Weights {
  const char* w;
  int64_t stride;
};

/// Rows that come next and are asked for meanwhile: `count` of them.
struct NextRows {
  const char* w;
  int64_t stride;
  int64_t count;

  void prefetch(int64_t step) const {
    for (int64_t r = 0; r < count; ++r)
      _mm_prefetch(w + r * stride + step * kStepBytes, _MM_HINT_T1);
  }
};

/// acc [32][kTiles * 16] (+)= weights times a panel over `steps` steps of k.
template <int kTiles>
void multiply(Weights weights, const float* x, int64_t steps, float* acc, bool first,
              NextRows next) {
  constexpr int64_t kWidth = kTiles * kTile;
  constexpr int64_t kRowBytes = kWidth * int64_t{sizeof(float)};
  float* lower = acc + kTile * kWidth;
  if (first) {
    _tile_zero(0);
    _tile_zero(2);
    if constexpr (kTiles == 2) {
      _tile_zero(1);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, acc, kRowBytes);
    _tile_loadd(2, lower, kRowBytes);
    if constexpr (kTiles == 2) {
      _tile_loadd(1, acc + kTile, kRowBytes);
      _tile_loadd(3, lower + kTile, kRowBytes);
    }
  }
  const char* w = weights.w;
  for (int64_t s = 0; s < steps; ++s) {
    next.prefetch(s);
    _tile_loadd(4, w, weights.stride);
    _tile_loadd(6, x, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, w + kTile * weights.stride, weights.stride);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kTiles == 2) {
      _tile_loadd(7, x + kTile, kRowBytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    w += kStepBytes;
    x += kTile * kWidth;
  }
  _tile_stored(0, acc, kRowBytes);
  _tile_stored(2, lower, kRowBytes);
  if constexpr (kTiles == 2) {
    _tile_stored(1, acc + kTile, kRowBytes);
    _tile_stored(3, lower + kTile, kRowBytes);
  }
}

struct TileBlock {
  const LinearProblem& p;
  const float* panels;
  int64_t count;  // tokens
  int64_t begin;  // weight rows
  int64_t end;
  float* packed;  // [32][16] weights: the end of k, or rows where there are too few
  float* acc;     // [panel][weight row][width]

  static int64_t acc_rows(int64_t rows) { return round_up(rows, kRows) + kRows; }

  /// A step's part of 32 rows, zero beyond k and beyond the last row.
  Weights pack(int64_t n, int64_t step) const {
    for (int64_t r = 0; r < kRows; ++r) {
      const int64_t u = step * kTile;
      const Vec v = n + r < p.n ? load_units<PairMath>(w_row<bf16>(p, n + r), u, p.k) : Vec::zero();
      v.store(packed + r * kTile);
    }
    return {reinterpret_cast<const char*>(packed), kStepBytes};
  }

  void multiply_panels(Weights weights, int64_t n, int64_t step, int64_t steps,
                       const char* next) const {
    const int64_t n_panels = (count + kPanel - 1) / kPanel;
    const int64_t units = units_of<TileMath>(p.k);
    for (int64_t i = 0; i < n_panels; ++i) {
      const int64_t t = i * kPanel;
      const int64_t width = panel_width(count - t);
      const float* x = panels + t * units + step * kTile * width;
      // Rows in front of `begin` that the last group repeats have a place in front of acc's.
      float* c = acc + i * acc_rows(end - begin) * kPanel + (n - begin + kRows) * width;
      // Each panel asks for its share of the rows that come next.
      const int64_t from = next == nullptr ? 0 : kRows * i / n_panels;
      const int64_t to = next == nullptr ? 0 : kRows * (i + 1) / n_panels;
      const NextRows rows{next + from * weights.stride, weights.stride, to - from};
      (width == kPanel ? multiply<2> : multiply<1>)(weights, x, steps, c, step == 0, rows);
    }
  }

  void run() const {
    const int64_t all = units_of<TileMath>(p.k) / kTile;
    const int64_t whole = p.n < kRows ? 0 : p.k / kStepElements;  // steps that memory can serve
    const int64_t at_once = count <= kPanel ? all : kSteps;
    const int64_t stride = p.w_stride * int64_t{sizeof(bf16)};
    for (int64_t step = 0; step < whole; step += at_once) {
      for (int64_t i = begin; i < end; i += kRows) {
        const int64_t n = least(i, p.n - kRows);
        const char* w = reinterpret_cast<const char*>(w_row<bf16>(p, n)) + step * kStepBytes;
        // The last group is followed by the first one, further along k.
        const char* next = n + 2 * kRows <= p.n ? w + kRows * stride : nullptr;
        multiply_panels({w, stride}, n, step, least(at_once, whole - step), next);
      }
    }
    for (int64_t step = whole; step < all; ++step) {
      for (int64_t i = begin; i < end; i += kRows) {
        const int64_t n = p.n < kRows ? i : least(i, p.n - kRows);
        multiply_panels(pack(n, step), n, step, 1, nullptr);
      }
    }
  }
};

int64_t tile_scratch(int64_t rows, int64_t tokens) {
  return kRows * kTile + TileBlock::acc_rows(rows) * round_up(tokens, kPanel);
}

void run_tiles(const LinearProblem& p, const float* panels, int64_t first, int64_t count,
               int64_t begin, int64_t end, float* scratch) {
  const TileBlock block{.p = p,
                        .panels = panels,
                        .count = count,
                        .begin = begin,
                        .end = end,
                        .packed = scratch,
                        .acc = scratch + kRows * kTile};
  {
    const TileRegisters registers;
    block.run();
  }
  for (int64_t t = 0; t < count; t += kPanel) {
    const float* acc = block.acc + t / kPanel * TileBlock::acc_rows(end - begin) * kPanel;
    finish_panel<TileMath>(p, acc + kRows * panel_width(count - t), first + t,
                           least(kPanel, count - t), begin, end);
  }
}

constexpr LinearKernels kTileKernels = {.panel_tokens = kPanel,
                                        .strip = kRows,
                                        .row_tokens = 0,
                                        .units = units_of<TileMath>,
                                        .pack_panel = pack_panel<TileMath>,
                                        .block = run_tiles,
                                        .block_scratch = tile_scratch,
                                        .row_units = nullptr,
                                        .pack_rows = nullptr,
                                        .rows = nullptr};

}  // namespace
}  // namespace simd

namespace amxbf16 {

const LinearKernels& linear_kernels() { return simd::kTileKernels; }

}  // namespace amxbf16
}  // namespace mmcore::ops
