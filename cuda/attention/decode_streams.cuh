// Decode over e4m3 where each warp has keys of its own.
//
// The tiles of a worker's units, one behind the other, are cut into one stretch a warp. A warp goes
// on to its next unit without waiting for anyone: what lies whole within its stretch it writes
// itself, what it shares with other warps it leaves in shared memory until all have come to their
// ends. Then the others read while one is between units, and a block that has many units has no
// barrier between them.
#pragma once

#include <cstdlib>

#include "attention/decode_mma.cuh"

namespace mmcore::cuda {

template <int kTheStages, int kTheWarps, int kTheBlocks>
struct StreamShape {
  static constexpr int kStages = kTheStages;
  static constexpr int kWarps = kTheWarps;
  static constexpr int kBlocks = kTheBlocks;  // that a multiprocessor has room for
};

/// Shared memory of a block.
template <class KV, int kDim, int kColumns, class Shape>
struct StreamShared {
  using Tile = DecodeTile<KV, kDim>;
  static constexpr int kRows = 8 * kColumns;
  static constexpr int kPitch = 16 * Tile::kSteps + 4;  // of a part's rows: no bank twice
  static constexpr int kPartBytes = kRows * kPitch * static_cast<int>(sizeof(float));
  static constexpr int kRingBytes = Shape::kStages * Tile::kStageBytes;
  static_assert(kPartBytes <= kRingBytes);

  unsigned char* rings;  // [warps]; at the end: the part that a warp's stretch ends in
  unsigned char* heads;  // [warps]: the part that a warp's stretch begins in
  float2* sums;          // [warps, 2, rows]: of both parts
  DecodeUnit* units;
  int32_t* starts;  // [units + 1]: where a unit's tiles begin among all
  int32_t* ends;    // [warps]: of the stretches
  int32_t* cuts;    // [warps]: the unit that the warp has the first part of; -1
  int* last;

  static constexpr int kFixed = kUnitsAtOnce * static_cast<int>(sizeof(DecodeUnit)) +
                                4 * (kUnitsAtOnce + 4) + 8 * Shape::kWarps + 16;
  static constexpr int bytes(int warps) {
    return kFixed +
           warps * (kRingBytes + kPartBytes + 2 * kRows * static_cast<int>(sizeof(float2)));
  }
  __device__ __forceinline__ StreamShared(unsigned char* base, int warps) {
    rings = base;
    base += warps * kRingBytes;
    heads = base;
    base += warps * kPartBytes;
    sums = reinterpret_cast<float2*>(base);
    base += warps * 2 * kRows * sizeof(float2);
    units = reinterpret_cast<DecodeUnit*>(base);
    base += kUnitsAtOnce * sizeof(DecodeUnit);
    starts = reinterpret_cast<int32_t*>(base);
    ends = starts + kUnitsAtOnce + 4;
    cuts = ends + Shape::kWarps;
    last = cuts + Shape::kWarps;
  }
  __device__ __forceinline__ float* part(int warp, bool first) const {
    return reinterpret_cast<float*>(first ? rings + warp * kRingBytes : heads + warp * kPartBytes);
  }
  __device__ __forceinline__ float2* sums_of(int warp, bool first) const {
    return sums + (2 * warp + (first ? 1 : 0)) * kRows;
  }
  /// Sums up the units' tiles. Seen by all behind the next barrier.
  __device__ __forceinline__ void number_tiles(int count) const {
    if (threadIdx.x >= 32) return;
    const int i = static_cast<int>(threadIdx.x);
    int sum = i < count ? units[i].tile_end - units[i].tile_begin : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int before = __shfl_up_sync(kFullWarp, sum, step);
      if (i >= step) sum += before;
    }
    starts[i + 1] = sum;
    if (i == 0) starts[0] = 0;
  }
};

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
    blocks_ = blocks_from(begin);
    next_ = blocks_from(begin + 32);
    enter();
  }

  /// Whether the next tile can be read while the kernel in front may still write.
  __device__ __forceinline__ bool is_settled(bool settled) const {
    return position_ >= end_ ||
           (settled && Tile::kChunkBytes == 16 && (tile_ + 1) * Tile::kKeys <= settled_keys_);
  }

  __device__ __forceinline__ void ask(uint32_t stage) {
    if (position_ < end_) {
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
      ++position_;
      ++tile_;
      if (tile_ == tile_end_ && position_ < end_) {
        ++unit_;
        enter();
      }
    }
    commit_async();
  }

 private:
  static constexpr bool kEven = 32 % Tile::kChunks == 0;  // a lane stays in its column
  static constexpr int kRowsAtOnce = kEven ? 32 / Tile::kChunks : 1;

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
  int blocks_ = -1;   // of positions [base, base + 32), one a lane
  int next_ = -1;     // of the 32 behind those
  const char* k_ = nullptr;
  const char* v_ = nullptr;
  int tile_ = 0, tile_end_ = 0, key_begin_ = 0, keys_ = 0, settled_keys_ = 0;
};

/// A warp's sums of a unit that is all its own: to the output, or the worker's slot.
template <class T, class KV, int kDim, int kColumns>
__device__ __forceinline__ void write_unit(const DecodeParams& p, const DecodeUnit& u,
                                           const DecodeState<T, KV, kDim, kColumns>& state,
                                           int lane) {
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float weights = state.sum_of_weights(n, c);
      const int row = 8 * n + 2 * (lane % 4) + c;
      if (row < u.rows && u.parts == 1) {
        const float r = weights > 0 ? p.v_scale / weights : 0.0f;
        const DecodeRow at = row_of(p, u, row);
        auto* to =
            reinterpret_cast<T*>(p.out + at.query * p.out_row_stride + at.head * p.out_head_stride);
        state.each_pair(n, c, lane, [&](int dim, float2 x) {
          *reinterpret_cast<uint32_t*>(to + dim) = packed<T>(r * x.x, r * x.y);
        });
      } else if (row < u.rows) {
        const int64_t at =
            int64_t{ops::partial_slot(static_cast<int32_t>(blockIdx.x), u.first_worker)} *
                p.max_rows +
            row;
        state.each_pair(n, c, lane, [&](int dim, float2 x) {
          __stcg(reinterpret_cast<float2*>(p.partials + at * kDim + dim), x);
        });
        if (lane < 4) __stcg(p.partial_sums + at, make_float2(state.top[n][c], weights));
      }
    }
  }
}

/// A warp's sums of a unit that it shares with other warps: to shared memory.
template <class Shared, class T, class KV, int kDim, int kColumns>
__device__ __forceinline__ void leave_part(float* values, float2* sums,
                                           const DecodeState<T, KV, kDim, kColumns>& state,
                                           int lane) {
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float weights = state.sum_of_weights(n, c);
      const int row = 8 * n + 2 * (lane % 4) + c;
      if (lane < 4) sums[row] = make_float2(state.top[n][c], weights);
      state.each_pair(n, c, lane, [&](int dim, float2 x) {
        *reinterpret_cast<float2*>(values + row * Shared::kPitch + dim) = x;
      });
    }
  }
}

/// Adds up what several warps have of a unit; a warp takes a row at a time.
template <class T, class KV, int kDim, int kColumns, class Shape>
__device__ __forceinline__ void merge_warps(const DecodeParams& p,
                                            const StreamShared<KV, kDim, kColumns, Shape>& shared,
                                            int warps, int warp, int lane) {
  using Shared = StreamShared<KV, kDim, kColumns, Shape>;
  int turn = warp;
  for (int w = 0; w < warps; ++w) {
    const int i = shared.cuts[w];
    if (i < 0) continue;
    const DecodeUnit& u = shared.units[i];
    int last = w + 1;
    while (shared.ends[last] < shared.starts[i + 1]) ++last;
    for (; turn < u.rows; turn += warps) {
      const int row = turn;
      float top = kNoScore;
      for (int x = w; x <= last; ++x) top = fmaxf(top, shared.sums_of(x, x == w)[row].x);
      for (int dim = 4 * lane; dim < kDim; dim += 128) {
        float4 sum{};
        float weights = 0;
        for (int x = w; x <= last; ++x) {
          const float2 of_warp = shared.sums_of(x, x == w)[row];
          const float factor = exp2f(of_warp.x - top);
          const auto values =
              *reinterpret_cast<const float4*>(shared.part(x, x == w) + row * Shared::kPitch + dim);
          sum.x += factor * values.x;
          sum.y += factor * values.y;
          sum.z += factor * values.z;
          sum.w += factor * values.w;
          weights += factor * of_warp.y;
        }
        put_part<T>(p, u, row, dim, sum, top, weights);
      }
    }
    turn -= u.rows;
  }
}

template <class T, class KV, int kDim, int kColumns, class Shape>
__global__ void __launch_bounds__(32 * Shape::kWarps, Shape::kBlocks)
    decode_streams(const __grid_constant__ DecodeParams p) {
  using Tile = DecodeTile<KV, kDim>;
  using Shared = StreamShared<KV, kDim, kColumns, Shape>;
  constexpr int kStages = Shape::kStages;
  extern __shared__ __align__(128) unsigned char memory[];
  const ops::DecodeWorker worker = p.workers[blockIdx.x];
  if (worker.begin >= worker.end) {
    // The rest may leave at once: this kernel does not end before its first block.
    if (blockIdx.x == 0) wait_for_predecessor();
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5,
            warps = static_cast<int>(blockDim.x) >> 5;
  const Shared shared(memory, warps);
  unsigned char* own = shared.rings + warp * Shared::kRingBytes;
  const uint32_t ring = shared_address(own);

  for (int first = 0;; first += kUnitsAtOnce) {
    const int count = list_units(p, worker, first, shared.units);
    if (count == 0) {
      if (first == 0) wait_for_predecessor();
      return;
    }
    shared.number_tiles(count);
    if constexpr (kDim % 16 != 0) clear(own, Shared::kRingBytes, lane);
    __syncthreads();
    const int all = shared.starts[count], busy = min(warps, all);
    int position = all * min(warp, busy) / busy;
    const int end = all * min(warp + 1, busy) / busy;
    StreamReader<KV, kDim> reader(p, shared.units, shared.starts, count, position, end, lane);
    // The plan and the tables were read, and keys as far as the kernel in front lets them be.
    bool waited = first > 0;
#pragma unroll
    for (int s = 0; s + 1 < kStages; ++s) {
      if (!waited && !reader.is_settled(worker.settled != 0)) {
        wait_for_predecessor();
        waited = true;
      }
      reader.ask(ring + s * Tile::kStageBytes);
    }
    if (!waited) wait_for_predecessor();

    int stage = 0, free_stage = kStages - 1, cut = -1, i = 0;
    if (position < end) {
      while (position >= shared.starts[i + 1]) ++i;
    }
    for (; position < end; ++i) {
      const DecodeUnit& u = shared.units[i];
      int tile = u.tile_begin + position - shared.starts[i];
      const int tile_end = min(u.tile_end, tile + end - position);
      const bool begins = tile == u.tile_begin, whole = begins && tile_end == u.tile_end;
      position += tile_end - tile;
      DecodeState<T, KV, kDim, kColumns> state;
      state.start(p, u, lane);
      for (; tile < tile_end; ++tile) {
        wait_async<kStages - 2>();
        __syncwarp();
        reader.ask(ring + free_stage * Tile::kStageBytes);
        const uint32_t k = ring + stage * Tile::kStageBytes;
        uint32_t weight[kColumns][2];
        state.weigh(p, tile, k, lane, weight);
        state.add(k + Tile::kBytes, lane, weight);
        free_stage = stage;
        stage = stage + 1 == kStages ? 0 : stage + 1;
      }
      if (whole) {
        write_unit<T>(p, u, state, lane);
      } else {
        if (begins) cut = i;
        __syncwarp();  // the ring has been read
        leave_part<Shared>(shared.part(warp, begins), shared.sums_of(warp, begins), state, lane);
      }
    }
    if (lane == 0) {
      shared.ends[warp] = end;
      shared.cuts[warp] = cut;
    }
    __syncthreads();
    merge_warps<T>(p, shared, warps, warp, lane);
    const auto arrive_with = [&](const DecodeUnit& u) {
      arrive<T, 8>(p, u, shared.last, [&](int thread) {
        return reinterpret_cast<MergedParts*>(shared.rings + thread / 32 * Shared::kRingBytes) +
               thread % 32;
      });
    };
    // Of the listed units other workers may have parts of the first and of the last.
    if (shared.units[0].parts > 1) arrive_with(shared.units[0]);
    if (count > 1 && shared.units[count - 1].parts > 1) arrive_with(shared.units[count - 1]);
    if (count < kUnitsAtOnce) return;
  }
}

template <class T, class KV, int kDim, int kColumns, class Shape>
Status launch_streams(const DecodeParams& p, int32_t workers, const DeviceFacts& facts,
                      cudaStream_t stream) {
  using Shared = StreamShared<KV, kDim, kColumns, Shape>;
  auto* kernel = decode_streams<T, KV, kDim, kColumns, Shape>;
  const int half = half_of_shared(facts);
  const int limit = Shape::kBlocks > 1 ? half : facts.shared_bytes;
  const int warps = warps_within(Shared::bytes, limit, Shape::kWarps, 1);
  const int bytes =
      Shape::kBlocks > 1 ? Shared::bytes(warps) : std::max(Shared::bytes(warps), half + 1);
  MMCORE_RETURN_IF_ERROR(allow_shared("paged_attention", kernel, bytes));
  launch_overlapped_with({.shared = bytes}, kernel, workers,
                         dim3(static_cast<unsigned>(32 * warps)), facts.capability,
                         facts.multiprocessors, stream, p);
  return launch_status("paged_attention");
}

inline int decode_variant() {
  const char* text = std::getenv("MMCORE_DECODE_VARIANT");
  return text == nullptr ? 0 : std::atoi(text);
}

/// For up to 8 or up to 16 rows.
template <class T, int kDim>
Status launch_decode_float8(const DecodeParams& p, int32_t workers, const DeviceFacts& facts,
                            cudaStream_t stream) {
  using KV = __nv_fp8_e4m3;
  constexpr bool kWide = kDim > 96;
  // From 10 on also where there may be teams, to be tested.
  const bool fits = p.block_shift >= 4 && (!p.teams || decode_variant() >= 10);
  const int variant = fits ? decode_variant() % 10 : 0;
  if (variant == 0) return launch_decode_rows<T, KV, kDim>(p, workers, facts, stream);
  if (p.max_rows > 8) {
    return launch_streams<T, KV, kDim, 2, StreamShape<3 + !kWide, 8, 1>>(p, workers, facts, stream);
  }
  if constexpr (std::is_same_v<T, __nv_bfloat16> && (kDim == 128 || kDim == 64)) {
    constexpr int kExtra = kDim == 64 ? 1 : 0;
    switch (variant) {
      case 2:
        return launch_streams<T, KV, kDim, 1, StreamShape<3, 8, 1>>(p, workers, facts, stream);
      case 3:
        return launch_streams<T, KV, kDim, 1, StreamShape<5 + kExtra, 8, 1>>(p, workers, facts,
                                                                             stream);
      case 4:
        return launch_streams<T, KV, kDim, 1, StreamShape<3 + kExtra, 12, 1>>(p, workers, facts,
                                                                              stream);
      default:
        break;
    }
  }
  constexpr int kMost = kDim == 256 ? 1 : 2;
  return launch_streams<T, KV, kDim, 1, StreamShape<3 + !kWide, kWide ? 6 : 8, kMost>>(
      p, workers, facts, stream);
}

}  // namespace mmcore::cuda
