// What a warp asks for on its stretch of tiles.
#pragma once

#include "attention/decode_tile.cuh"

namespace mmcore::cuda {

/// What a warp asks for next: positions [position, end) among the tiles of the listed units.
template <class KV, int kDim>
class StreamReader {
 public:
  using Tile = DecodeTile<KV, kDim>;

  __device__ __forceinline__ StreamReader(const DecodeParams& p, const DecodeUnit* units,
                                          const int32_t* starts, int count, int begin, int end,
                                          int lane)
      : p_(p),
        tiles_{p, units, count, 0, lane},
        starts_(starts),
        end_(end),
        base_(begin),
        position_(begin) {
    if (begin >= end) return;
    while (begin >= starts[unit_ + 1]) ++unit_;
    its_unit_ = unit_;
    enter();
    if (small_pages()) {
      blocks_ = blocks_of_tile();
    } else {
      blocks_ = blocks_from(begin);
      next_ = blocks_from(begin + 32);
    }
  }

  /// Whether the next tile can be read while the kernel in front may still write.
  __device__ __forceinline__ bool is_settled(bool settled) const {
    return position_ >= end_ ||
           (settled && Tile::kChunkBytes == 16 && (tile_ + 1) * Tile::kKeys <= settled_keys_);
  }

  __device__ __forceinline__ void ask(uint32_t stage) {
    if (position_ < end_) {
      if (small_pages()) {
        ask_scattered(stage);
      } else {
        ask_tile(stage);
      }
      ++position_;
      ++tile_;
      if (tile_ == tile_end_ && position_ < end_) {
        ++unit_;
        enter();
      }
      if (small_pages()) blocks_ = blocks_of_tile();
    }
    commit_async();
  }

 private:
  static constexpr bool kEven = 32 % Tile::kChunks == 0;  // a lane stays in its column
  static constexpr int kRowsAtOnce = kEven ? 32 / Tile::kChunks : 1;

  __device__ __forceinline__ bool small_pages() const { return p_.block_shift < 4; }

  __device__ __forceinline__ void ask_tile(uint32_t stage) {
    if (position_ - base_ == 32) {
      base_ += 32;
      blocks_ = next_;
      next_ = blocks_from(base_ + 32);
    }
    const int block = __shfl_sync(kFullWarp, blocks_, position_ - base_);
    const int key = tile_ * Tile::kKeys;
    const int64_t at = max(block, 0), row = key & ((1 << p_.block_shift) - 1);
    const char* k = k_ + at * p_.k_block_stride + row * p_.k_row_stride;
    const char* v = v_ + at * p_.v_block_stride + row * p_.v_row_stride;
    if (block >= 0 && key >= key_begin_ && key + Tile::kKeys <= keys_) {
      ask_rows<true>(k, p_.k_row_stride, stage, 0, 0);
      ask_rows<true>(v, p_.v_row_stride, stage + Tile::kBytes, 0, 0);
    } else {  // what is no key becomes zeros, for what lies there may be NaN
      const int from = key_begin_ - key, to = block < 0 ? 0 : keys_ - key;
      ask_rows<false>(k, p_.k_row_stride, stage, from, to);
      ask_rows<false>(v, p_.v_row_stride, stage + Tile::kBytes, from, to);
    }
  }

  /// Rows of blocks of less than a tile.
  __device__ __forceinline__ void ask_scattered(uint32_t stage) const {
    const DecodeUnit& u = tiles_.units[unit_];
    const int key = tile_ * Tile::kKeys, from = key_begin_ - key, to = keys_ - key;
    tiles_.ask_scattered(p_.k + u.kv_head * p_.k_head_stride, p_.k_block_stride, p_.k_row_stride,
                         stage, key, from, to, blocks_);
    tiles_.ask_scattered(p_.v + u.kv_head * p_.v_head_stride, p_.v_block_stride, p_.v_row_stride,
                         stage + Tile::kBytes, key, from, to, blocks_);
  }

  /// Of this lane: the block of key lane % 16 of the next tile.
  __device__ __forceinline__ int blocks_of_tile() const {
    return position_ < end_ ? tiles_.block_of({unit_, tile_}) : -1;
  }

  /// Rows of a tile that lie one behind the other, `rows` where the lane begins: all, or [from,
  /// to).
  template <bool kAll>
  __device__ __forceinline__ void ask_rows(const char* rows, int64_t row_stride, uint32_t stage,
                                           int from, int to) const {
    if constexpr (kEven) {
      const int64_t step = kRowsAtOnce * row_stride;
      const int row = tiles_.lane / Tile::kChunks;
      const uint32_t own = stage + Tile::offset(row, tiles_.lane % Tile::kChunks);
#pragma unroll
      for (int i = 0; i < Tile::kKeys / kRowsAtOnce; ++i) {
        const int below = i * kRowsAtOnce;
        // Swizzles of rows are those of their bits, and stages begin with a line of banks.
        copy_chunk_async<Tile::kChunkBytes, Tile::kWholeLines>(
            (own ^ static_cast<uint32_t>(16 * Tile::swizzle(below))) +
                static_cast<uint32_t>(below * Tile::kRowBytes),
            rows, kAll || (row + below >= from && row + below < to));
        rows += step;
      }
    } else {
      tiles_.ask_rows(rows, row_stride, stage, kAll ? 0 : from, kAll ? Tile::kKeys : to);
    }
  }

  __device__ __forceinline__ void enter() {
    const DecodeUnit& u = tiles_.units[unit_];
    k_ = p_.k + u.kv_head * p_.k_head_stride;
    v_ = p_.v + u.kv_head * p_.v_head_stride;
    if constexpr (kEven) {
      const int row = tiles_.lane / Tile::kChunks;
      const int byte = tiles_.lane % Tile::kChunks * Tile::kChunkBytes;
      k_ += row * p_.k_row_stride + byte;
      v_ += row * p_.v_row_stride + byte;
    }
    tile_ = u.tile_begin + position_ - starts_[unit_];
    tile_end_ = u.tile_end;
    key_begin_ = u.key_begin;
    keys_ = u.keys;
    settled_keys_ = u.keys - u.queries;
  }
  /// Of this lane: the block of position first + lane; -1 where there is none. Called in order.
  __device__ __forceinline__ int blocks_from(int first) {
    const int position = first + tiles_.lane;
    if (position >= end_) return -1;
    while (position >= starts_[its_unit_ + 1]) ++its_unit_;
    const DecodeUnit& u = tiles_.units[its_unit_];
    const int key = (u.tile_begin + position - starts_[its_unit_]) * Tile::kKeys;
    const int block =
        __ldg(p_.block_tables + u.sequence * p_.table_stride + (key >> p_.block_shift));
    return static_cast<unsigned>(block) < static_cast<unsigned>(p_.num_blocks) ? block : -1;
  }

  const DecodeParams& p_;
  const TileReader<KV, kDim> tiles_;
  const int32_t* starts_;
  int end_;
  int base_;      // position of lane 0's block
  int position_;  // of the next tile
  int unit_ = 0;
  int its_unit_ = 0;  // of the last block that this lane looked up
  int blocks_ = -1;   // of positions [base, base + 32), one a lane, or of small pages
  int next_ = -1;     // of the 32 behind those
  const char* k_ = nullptr;
  const char* v_ = nullptr;
  int tile_ = 0, tile_end_ = 0, key_begin_ = 0, keys_ = 0, settled_keys_ = 0;
};

}  // namespace mmcore::cuda
