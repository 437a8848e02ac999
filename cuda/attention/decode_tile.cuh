// Tiles of 16 keys and values in shared memory: how they lie there, how a warp asks for them, and
// the warp's matrix instructions on them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "attention/decode_unit.cuh"
#include "device/reduce.cuh"

namespace mmcore::cuda {

/// KV: the queries' type, or e4m3.
template <class KV, int kDim>
struct DecodeTile {
  static constexpr int kKeys = ops::kCellKeys;
  static constexpr int kElement = static_cast<int>(sizeof(KV));
  static constexpr int kSteps = (kDim + 15) / 16;  // of 16 dims
  static constexpr int kChunkBytes = kDim * kElement % 16 == 0 ? 16 : 8;
  static constexpr int kChunks = kDim * kElement / kChunkBytes;  // in a key's row
  // Rows of e4m3 that are read in pieces of 16 bytes, 64 dims at a time.
  static constexpr bool kWide = kElement == 1 && kDim % 64 == 0;
  static constexpr bool kSwizzled = kWide || (kChunkBytes == 16 && kChunks % 8 == 0);
  // An odd number of 16 bytes, or a swizzle, puts 8 rows' pieces into different banks.
  static constexpr int kRowBytes = kSwizzled ? kChunks * 16 : ((kElement * kSteps) | 1) * 16;
  static constexpr int kBytes = kKeys * kRowBytes;  // of K or V
  static constexpr int kStageBytes = 2 * kBytes;
  static constexpr int kStages = kElement == 1 && kDim == 128  ? 4
                                 : kStageBytes > 2048 || kWide ? 3
                                                               : 4;
  // A row of less than a line of the cache lies beside other heads' rows, which are not wanted yet.
  static constexpr bool kWholeLines = kElement == 2 || kDim % 128 == 0;
  static constexpr int kWarpBytes = kStages * kStageBytes;

  /// Wide rows: pieces [4 h, 4 h + 4) of two rows, and piece c of 8, lie in different banks.
  static __device__ __forceinline__ int swizzle(int row) {
    if constexpr (!kSwizzled) {
      return 0;
    } else if constexpr (kWide) {
      return ((row >> 1) & 3) | (kDim > 64 ? (row & 1) << 2 : 0);
    } else {
      return row & 7;
    }
  }
  static __device__ __forceinline__ int offset(int row, int chunk) {
    return row * kRowBytes + (chunk ^ swizzle(row)) * kChunkBytes;
  }
  /// The 16 bytes that step `s` of a row of e4m3 has.
  static __device__ __forceinline__ int step_offset(int row, int s) {
    return row * kRowBytes + (s ^ swizzle(row)) * 16;
  }
};

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// 16 or 8 bytes, or zeros.
template <int kBytes, bool kWholeLines>
__device__ __forceinline__ void copy_chunk_async(uint32_t to, const char* from, bool there) {
  if constexpr (kBytes == 16 && !kWholeLines) {
    asm volatile("cp.async.cg.shared.global.L2::64B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
  } else if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], 8, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 8 : 0)
                 : "memory");
  }
}
__device__ __forceinline__ void commit_async() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wait_async() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&x)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(at)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&x)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(at)
               : "memory");
}
/// Two matrices; rows of the lower 16 lanes.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&x)[2], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(x[0]), "=r"(x[1])
               : "r"(at)
               : "memory");
}
__device__ __forceinline__ uint32_t load_word(uint32_t at) {
  uint32_t x;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
  return x;
}
__device__ __forceinline__ void load_words(uint32_t (&x)[4], uint32_t at) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(at)
               : "memory");
}
__device__ __forceinline__ uint32_t transposed(uint32_t x) {
  uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

template <class T>
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

/// `low` in the lower half.
template <class T>
__device__ __forceinline__ uint32_t packed(float low, float high) {
  uint32_t x;
  if constexpr (std::is_same_v<T, __half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
  }
  return x;
}

template <class T>
__device__ __forceinline__ float2 widened(uint32_t pair) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  } else {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  }
}

/// Four e4m3 as two pairs of __half, the lower two first. Exact.
__device__ __forceinline__ void widen(uint32_t four, uint32_t& low, uint32_t& high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  asm("{.reg .b16 lower, upper;\n"
      "mov.b32 {lower, upper}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, lower;\n"
      "cvt.rn.f16x2.e4m3x2 %1, upper;}"
      : "=r"(low), "=r"(high)
      : "r"(four));
#else
  const auto pair = [](uint32_t two) {
    const __half2_raw x =
        __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(two), __NV_E4M3);
    return static_cast<uint32_t>(x.x) | static_cast<uint32_t>(x.y) << 16;
  };
  low = pair(four & 0xffffu);
  high = pair(four >> 16);
#endif
}

/// Keys [16, 16 dims] of step `s` as a left operand, e4m3 as __half. Of those, a thread's columns
/// are 4 dims that follow each other, which is as good as any order if queries come in the same
/// one.
template <class KV, int kDim>
__device__ __forceinline__ void load_keys(uint32_t (&x)[4], uint32_t tile, int s, int lane) {
  using Tile = DecodeTile<KV, kDim>;
  if constexpr (Tile::kElement == 2) {
    load_matrices(x, tile + Tile::offset(lane & 15, 2 * s + (lane >> 4)));
  } else {
    // The row 8 further on is swizzled alike.
    const uint32_t at = tile + Tile::step_offset(lane >> 2, s) + 4 * (lane & 3);
    widen(load_word(at), x[0], x[2]);
    widen(load_word(at + 8 * Tile::kRowBytes), x[1], x[3]);
  }
}
/// Wide rows: keys [16, 64 dims] of steps [s, s + 4).
template <class KV, int kDim>
__device__ __forceinline__ void load_wide_keys(uint32_t (&x)[4][4], uint32_t tile, int s,
                                               int lane) {
  using Tile = DecodeTile<KV, kDim>;
  const uint32_t at = tile + Tile::step_offset(lane >> 2, s + (lane & 3));
  uint32_t upper[4], lower[4];
  load_words(upper, at);
  load_words(lower, at + 8 * Tile::kRowBytes);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    widen(upper[i], x[i][0], x[i][2]);
    widen(lower[i], x[i][1], x[i][3]);
  }
}
/// The dim that half a right operand of step `s` begins with.
template <class KV, int kDim>
__device__ __forceinline__ int query_dim(int s, int half, int lane) {
  if constexpr (DecodeTile<KV, kDim>::kWide) {
    return 64 * (s / 4) + 16 * (lane % 4) + 4 * (s % 4) + 2 * half;
  } else {
    return 16 * s + (sizeof(KV) == 2 ? 8 * half + 2 * (lane % 4) : 4 * (lane % 4) + 2 * half);
  }
}

/// Values [16 dims of step `s`, 16 keys] as a left operand. Of e4m3, rows g and g + 8 are dims 2 g
/// and 2 g + 1: pairs of bytes travel through a transposition of 16-bit elements.
template <class KV, int kDim>
__device__ __forceinline__ void load_values(uint32_t (&x)[4], uint32_t tile, int s, int lane) {
  using Tile = DecodeTile<KV, kDim>;
  if constexpr (Tile::kElement == 2) {
    load_matrices_transposed(
        x, tile + Tile::offset((lane & 7) + (lane >> 4) * 8, 2 * s + ((lane >> 3) & 1)));
  } else {
    uint32_t pairs[2];  // byte 0: key 2 t, dim 2 g; 1: dim 2 g + 1; 2 and 3: key 2 t + 1
    load_matrices_transposed(pairs, tile + Tile::step_offset(lane & 15, s));
    widen(__byte_perm(pairs[0], 0, 0x3120), x[0], x[1]);
    widen(__byte_perm(pairs[1], 0, 0x3120), x[2], x[3]);
  }
}
/// Wide rows: steps s and s + 1.
template <class KV, int kDim>
__device__ __forceinline__ void load_wide_values(uint32_t (&x)[2][4], uint32_t tile, int s,
                                                 int lane) {
  using Tile = DecodeTile<KV, kDim>;
  uint32_t pairs[4];
  load_matrices_transposed(pairs, tile + Tile::step_offset(lane & 15, s + (lane >> 4)));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    widen(__byte_perm(pairs[2 * i], 0, 0x3120), x[i][0], x[i][1]);
    widen(__byte_perm(pairs[2 * i + 1], 0, 0x3120), x[i][2], x[i][3]);
  }
}
/// The dim of row lane / 4, or of that + 8, of step 0.
template <class KV>
__device__ __forceinline__ int value_dim(int half, int lane) {
  return sizeof(KV) == 2 ? lane / 4 + 8 * half : 2 * (lane / 4) + half;
}

__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// tanh, to some 1e-7.
__device__ __forceinline__ float bent(float x) {
  return 1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * x));
}

__device__ __forceinline__ float score(const DecodeParams& p, float dot) {
  if (p.cap_factor == 0) return p.factor * dot;
  return p.factor * (1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * p.cap_factor * dot)));
}

/// Zeros from the warp: what no key fills, for NaN times 0 is NaN.
__device__ __forceinline__ void clear(unsigned char* bytes, int count, int lane) {
  auto* words = reinterpret_cast<uint32_t*>(bytes);
  for (int i = lane; i < count / 4; i += 32) words[i] = 0;
  __syncwarp();
}

/// A warp's way through the tiles of the listed units: each `warps`-th tile of all of them in a
/// row, so that no warp has more than one tile more than another.
struct TileCursor {
  int unit;
  int tile;

  __device__ __forceinline__ void settle(const DecodeUnit* units, int count) {
    while (unit < count && tile >= units[unit].tile_end) {
      const int past = tile - units[unit].tile_end;
      ++unit;
      if (unit < count) tile = units[unit].tile_begin + past;
    }
  }
};

/// Reads tiles of keys and values ahead.
template <class KV, int kDim>
struct TileReader {
  using Tile = DecodeTile<KV, kDim>;

  const DecodeParams& p;
  const DecodeUnit* units;
  int count;
  uint32_t ring;  // shared memory address of the warp's stages
  int lane;

  /// The block of key lane % 16 of a tile; -1 where there is none.
  __device__ __forceinline__ int block_of(const TileCursor& at) const {
    if (at.unit >= count) return -1;
    const DecodeUnit& u = units[at.unit];
    const int key = at.tile * Tile::kKeys + (lane & 15);
    const int known = min(max(key, u.key_begin), u.keys - 1);
    const int block =
        __ldg(p.block_tables + u.sequence * p.table_stride + (known >> p.block_shift));
    return static_cast<unsigned>(block) < static_cast<unsigned>(p.num_blocks) ? block : -1;
  }

  /// Whether a tile can be read while the kernel in front may still write keys of its step. Pieces
  /// of 8 bytes come through the L1 cache, where what lies around them would be kept.
  __device__ __forceinline__ bool is_settled(const TileCursor& at, bool settled) const {
    if (at.unit >= count) return true;
    const DecodeUnit& u = units[at.unit];
    return settled && Tile::kChunkBytes == 16 && (at.tile + 1) * Tile::kKeys <= u.keys - u.queries;
  }

  static constexpr int kPieces = Tile::kKeys * Tile::kChunks;

  /// Rows [from, to) of 16 that lie one behind the other.
  __device__ __forceinline__ void ask_rows(const char* rows, int64_t row_stride, uint32_t stage,
                                           int from, int to) const {
    if constexpr (32 % Tile::kChunks == 0) {  // a lane stays in its column
      constexpr int kRowsAtOnce = 32 / Tile::kChunks;
      int row = lane / Tile::kChunks;
      const int chunk = lane % Tile::kChunks;
      rows += row * row_stride + chunk * Tile::kChunkBytes;
#pragma unroll
      for (int i = 0; i < Tile::kKeys / kRowsAtOnce; ++i) {
        copy_chunk_async<Tile::kChunkBytes, Tile::kWholeLines>(stage + Tile::offset(row, chunk),
                                                               rows, row >= from && row < to);
        row += kRowsAtOnce;
        rows += kRowsAtOnce * row_stride;
      }
    } else {
#pragma unroll
      for (int i = 0; i < (kPieces + 31) / 32; ++i) {
        const int piece = i * 32 + lane, row = piece / Tile::kChunks, chunk = piece % Tile::kChunks;
        if (piece >= kPieces) continue;
        copy_chunk_async<Tile::kChunkBytes, Tile::kWholeLines>(
            stage + Tile::offset(row, chunk), rows + row * row_stride + chunk * Tile::kChunkBytes,
            row >= from && row < to);
      }
    }
  }

  /// Rows of blocks with less than 16; lane r knows row r's.
  __device__ __forceinline__ void ask_scattered(const char* rows, int64_t block_stride,
                                                int64_t row_stride, uint32_t stage, int key,
                                                int from, int to, int block) const {
    const int inside = (1 << p.block_shift) - 1;
#pragma unroll 2
    for (int i = 0; i < (kPieces + 31) / 32; ++i) {
      const int piece = i * 32 + lane, row = piece / Tile::kChunks % Tile::kKeys,
                chunk = piece % Tile::kChunks;
      const int64_t its_block = __shfl_sync(kFullWarp, block, row);
      if (piece >= kPieces) continue;
      const bool there = row >= from && row < to && its_block >= 0;
      const int64_t at = there ? its_block * block_stride + ((key + row) & inside) * row_stride : 0;
      copy_chunk_async<Tile::kChunkBytes, Tile::kWholeLines>(
          stage + Tile::offset(row, chunk), rows + at + chunk * Tile::kChunkBytes, there);
    }
  }

  /// Asks for a tile; rows outside of the unit's keys become zeros, for what lies there may be NaN.
  __device__ __forceinline__ void ask(const TileCursor& at, int block, uint32_t stage) const {
    if (at.unit < count) {
      ask_half<false>(at, block, stage);
      ask_half<true>(at, block, stage + Tile::kBytes);
    }
    commit_async();
  }

 private:
  template <bool kValues>
  __device__ __forceinline__ void ask_half(const TileCursor& at, int block, uint32_t stage) const {
    const DecodeUnit& u = units[at.unit];
    const int key = at.tile * Tile::kKeys, inside = (1 << p.block_shift) - 1;
    const int from = u.key_begin - key, to = u.keys - key;
    const int64_t block_stride = kValues ? p.v_block_stride : p.k_block_stride;
    const int64_t row_stride = kValues ? p.v_row_stride : p.k_row_stride;
    const char* rows =
        kValues ? p.v + u.kv_head * p.v_head_stride : p.k + u.kv_head * p.k_head_stride;
    if (p.block_shift >= 4) {
      rows += int64_t{max(block, 0)} * block_stride + (key & inside) * row_stride;
      ask_rows(rows, row_stride, stage, from, block < 0 ? 0 : to);
    } else {
      ask_scattered(rows, block_stride, row_stride, stage, key, from, to, block);
    }
  }
};

}  // namespace mmcore::cuda
