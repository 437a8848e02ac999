// What the warps of a block of wgmma attention share: how its shared memory lies, its barriers and
// the order of its tiles.
#pragma once

#include <cstdint>

#include "attention/prefill_tile.cuh"
#include "device/hopper.cuh"

namespace mmcore::cuda {
namespace wgmma {

inline constexpr int kGroup = 128;        // threads
inline constexpr int kPanelColumns = 64;  // a row of a panel is 128 bytes
inline constexpr int kQueryPanel = kPrefillTileRows * 128;

/// Shared memory: queries, then keys, then values of each stage, all in panels of 64 columns; what
/// is left of a head dim in the last panel is zeros. Behind them, where keys and values are widened
/// on their way, tiles of both as they come.
template <int D, bool kWiden = false>
struct Shape {
  // A group of its own widens. ptxas 13.0 has no registers for products of wider heads beside it.
  static constexpr bool kWidenGroup = kWiden && D <= 128;
  static constexpr int kThreads = (kWidenGroup ? 4 : 3) * kGroup;
  static constexpr int kKeys = D > 128 ? 64 : 128;
  // Of keys that come in one copy, at most: what one warp asks for.
  static constexpr int kBoxRows = kWiden && !kWidenGroup ? kKeys / 4 : kKeys;
  static constexpr int kPanels = (D + kPanelColumns - 1) / kPanelColumns;
  static constexpr int kSteps = (D + 15) / 16;
  static constexpr int kStages = D > 64 ? 2 : 4;
  // The place of a second tile of queries is worth more as one of keys that wait to be widened.
  static constexpr int kQueryStages = D > 128 || kWidenGroup ? 1 : 2;
  static constexpr int kStagedTiles = !kWiden ? 0 : D > 128 ? 1 : 2;  // of keys, and of values
  // Narrow heads have more softmax than products: the two groups had better not wait for each
  // other, and a group's weights come before it waits for its products. Not beside a group that
  // widens: ptxas 13.0 keeps weights in memory then, and products wait for each other.
  static constexpr bool kTurns = D > 64 || kWidenGroup;
  static constexpr bool kWeightsBeforeWait = !kTurns;
  static constexpr int kKeyPanel = kKeys * 128;
  static constexpr int kQueryBytes = kPanels * kQueryPanel;
  static constexpr int kKeyBytes = kPanels * kKeyPanel;
  static constexpr int kStagedBytes = kKeys * D;  // of a tile
  static constexpr int kSharedBytes = kQueryStages * kQueryBytes + 2 * kStages * kKeyBytes +
                                      2 * kStagedTiles * kStagedBytes + 1024;  // to align
};

/// A tile of queries, a head, and what the block does of them: some of the tiles of keys.
struct WorkItem {
  QueryTile tile;
  int32_t head;
  KeySpan keys;          // tiles of keys [begin, end)
  int32_t first_worker;  // of the blocks that share it
  int32_t parts;         // 1: nobody else has part of it
};

/// What the loaders say of an item besides its queries. sequence -1: there are no more.
struct ItemNote {
  WorkItem item;
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

/// This block's items, heads that share keys one after another: a stretch of the line where tiles
/// are cut; whole items otherwise, in rounds that run to and fro, so that a block which had the
/// longest of one has the shortest of the next. Whole warps use it.
template <int kKeys>
class ItemCursor {
 public:
  __device__ __forceinline__ explicit ItemCursor(const PrefillParams& a) : a_(a) {
    const auto block = static_cast<int32_t>(blockIdx.x);
    // All asked for at once: none waits for what another says.
    int32_t chunk = 0, steps = 0, tiles = a.max_tiles;
    ops::PrefillWorker worker{0, 0};
    if (a.cuts.cut != nullptr) {
      chunk = a.cuts.cut[0];
      steps = a.cuts.cut[1];
      worker = a.cuts.workers[block];
    }
    if (a.tiles != nullptr) tiles = min(*a.count, a.max_tiles);
    chunk_ = chunk;
    if (chunk > 0) {
      if (block * chunk < steps) end_ = min((block + 1) * chunk, steps);
      item_ = worker.item;
      at_ = worker.line;
    } else {
      end_ = tiles * a.p.heads;
    }
  }

  /// False: there are no more.
  __device__ __forceinline__ bool next(WorkItem& work) {
    const auto blocks = static_cast<int32_t>(gridDim.x), block = static_cast<int32_t>(blockIdx.x);
    while (at_ < end_) {
      if (chunk_ > 0) {
        if (!find_tile(a_, item_ / a_.p.heads, work.tile)) return false;
        work.head = item_ % a_.p.heads;
        work.keys = key_tiles<kKeys>(a_, work.tile);
        const int32_t length = max(work.keys.end - work.keys.begin, 1);
        const ops::PrefillPart part = ops::prefill_part(block, chunk_, at_, length);
        if (work.keys.begin < work.keys.end) {
          work.keys = {work.keys.begin + part.begin, work.keys.begin + part.end};
        }
        work.first_worker = part.first_worker;
        work.parts = part.parts;
        at_ += length;
        ++item_;
        return true;
      }
      const int32_t item = at_ + (item_ != 0 ? blocks - 1 - block : block);
      at_ += blocks;
      item_ ^= 1;
      if (item >= end_ || !find_tile(a_, item / a_.p.heads, work.tile)) continue;
      if (work.tile.rows() <= 0) continue;
      work.head = item % a_.p.heads;
      work.keys = key_tiles<kKeys>(a_, work.tile);
      work.first_worker = block;
      work.parts = 1;
      return true;
    }
    return false;
  }

 private:
  const PrefillParams& a_;
  int32_t chunk_ = 0;
  int32_t at_ = 0;    // on the line, or the first item of the round
  int32_t end_ = 0;   // of the stretch, or of all items
  int32_t item_ = 0;  // the next, or 1 for a round that runs backwards
};

}  // namespace wgmma
}  // namespace mmcore::cuda
