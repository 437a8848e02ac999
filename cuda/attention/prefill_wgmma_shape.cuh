// What the warps of a block of wgmma attention share: how its shared memory lies, its barriers and
// the order of its tiles.
#pragma once

#include <cstdint>

#include "attention/prefill_tile.cuh"
#include "device/hopper.cuh"

namespace mmcore::cuda {
namespace wgmma {

inline constexpr int kGroup = 128;  // threads
inline constexpr int kThreads = 3 * kGroup;
inline constexpr int kPanelColumns = 64;  // a row of a panel is 128 bytes
inline constexpr int kQueryPanel = kPrefillTileRows * 128;

/// Shared memory: queries, then keys, then values of each stage, all in panels of 64 columns; what
/// is left of a head dim in the last panel is zeros.
template <int D>
struct Shape {
  static constexpr int kKeys = D > 128 ? 64 : 128;
  static constexpr int kPanels = (D + kPanelColumns - 1) / kPanelColumns;
  static constexpr int kSteps = (D + 15) / 16;
  static constexpr int kStages = D > 64 ? 2 : 4;
  static constexpr int kQueryStages = D > 128 ? 1 : 2;
  // Narrow heads have more softmax than products: the two groups had better not wait for each
  // other, and a group's weights come before it waits for its products.
  static constexpr bool kTurns = D > 64;
  static constexpr bool kWeightsBeforeWait = !kTurns;
  static constexpr int kKeyPanel = kKeys * 128;
  static constexpr int kQueryBytes = kPanels * kQueryPanel;
  static constexpr int kKeyBytes = kPanels * kKeyPanel;
  static constexpr int kSharedBytes =
      kQueryStages * kQueryBytes + 2 * kStages * kKeyBytes + 1024;  // to align
};

/// What the loaders say of a tile besides its queries. sequence -1: there are no more.
struct TileNote {
  QueryTile tile;
  int32_t head;
  int32_t first_row;  // of q and out
};

/// Barriers at fixed places; "full" ones count loads, or warps that have written; "free" ones warps
/// that have read.
template <int kStages, int kQueryStages>
struct Barriers {
  uint64_t query_full[kQueryStages], query_free[kQueryStages];
  uint64_t keys_full[kStages], keys_free[kStages];
  uint64_t values_full[kStages], values_free[kStages];
};

using hopper::Ring;

__device__ __forceinline__ uint32_t address(const void* shared) {
  return hopper::shared_address(shared);
}

template <class S>
using BarriersOf = Barriers<S::kStages, S::kQueryStages>;

/// The tiles of key rows that a tile of queries sees: [begin, end).
template <int kKeys>
__device__ __forceinline__ KeySpan key_tiles(const PrefillParams& a, const QueryTile& tile) {
  const KeySpan span = visible(a.p, tile, tile.first, tile.first + tile.rows() - 1);
  if (span.end <= span.begin) return {0, 0};
  return {span.begin / kKeys, (span.end + kKeys - 1) / kKeys};
}

/// This block's tiles, heads that share keys one after another. Rounds run to and fro, so that a
/// block which had the longest of one has the shortest of the next. Whole warps use it.
class TileCursor {
 public:
  __device__ __forceinline__ explicit TileCursor(const PrefillParams& a)
      : a_(a),
        items_((a.tiles != nullptr ? min(*a.count, a.max_tiles) : a.max_tiles) * a.p.heads) {}

  /// False: there are no more.
  __device__ __forceinline__ bool next(QueryTile& tile, int32_t& head) {
    const auto blocks = static_cast<int32_t>(gridDim.x), block = static_cast<int32_t>(blockIdx.x);
    while (first_ < items_) {
      const int32_t item = first_ + (back_ ? blocks - 1 - block : block);
      first_ += blocks;
      back_ = !back_;
      if (item >= items_ || !find_tile(a_, item / a_.p.heads, tile) || tile.rows() <= 0) continue;
      head = item % a_.p.heads;
      return true;
    }
    return false;
  }

 private:
  const PrefillParams& a_;
  int32_t items_;
  int32_t first_ = 0;
  bool back_ = false;
};

}  // namespace wgmma
}  // namespace mmcore::cuda
