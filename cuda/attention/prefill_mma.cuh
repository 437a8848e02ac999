// Attention of 128 query rows of one head with mma.sync, for compute capability 8.0 and up: 8 warps
// of 16 rows; keys and values pass through one buffer each, so that values arrive while scores are
// computed and the next keys while values are summed. Keys and values of e4m3 wait in registers
// meanwhile and are widened on their way into shared memory.
#pragma once

#include <cstdint>
#include <type_traits>

#include "attention/prefill_softmax.cuh"
#include "attention/prefill_tile.cuh"
#include "device/convert.cuh"
#include "host/device.h"

namespace mmcore::cuda {
namespace mma {

inline constexpr int kThreads = 256;

/// Rows in shared memory, in pieces of 16 bytes. Eight rows that are read at once lie in different
/// banks: by exchange of pieces, or by an odd number of pieces a row.
template <int D>
struct Shape {
  static constexpr int kDim = (D + 15) / 16 * 16;
  static constexpr int kKeys = D > 128 ? 32 : 64;
  static constexpr int kPieces = kDim / 8;
  static constexpr bool kExchange = kPieces % 8 == 0;
  static constexpr int kPitch = kExchange ? kPieces : kPieces + 1;
  static constexpr int kSharedBytes = (kPrefillTileRows + 2 * kKeys) * kPitch * 16;
  static constexpr bool kQueryInRegisters = D <= 128;

  __device__ static constexpr uint32_t offset(int row, int piece) {
    return static_cast<uint32_t>(row * kPitch + (kExchange ? piece ^ (row & 7) : piece)) * 16;
  }
};

__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ __forceinline__ void wait_all() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void load_transposed(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

/// c += a b for one block of 8 columns, whose accumulators begin at c.
template <class T>
__device__ __forceinline__ void multiply(float* c, const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1);
#define MMCORE_DEFINE_MULTIPLY(T, NAME)                                                     \
  template <>                                                                               \
  __device__ __forceinline__ void multiply<T>(float* c, const uint32_t(&a)[4], uint32_t b0, \
                                              uint32_t b1) {                                \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME                     \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"     \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));           \
  }
MMCORE_DEFINE_MULTIPLY(__nv_bfloat16, "bf16")
MMCORE_DEFINE_MULTIPLY(__half, "f16")
#undef MMCORE_DEFINE_MULTIPLY

/// One piece of a row of D elements, zeros where there is none.
template <int D, class T>
__device__ __forceinline__ void load_piece(uint32_t to, const T* row, int piece, bool there,
                                           bool vectors, const T* somewhere) {
  there = there && piece < D / 8;
  const T* from = there ? row + 8 * piece : somewhere;
  if (vectors) return copy_async(to, from, there);
  uint32_t words[4] = {};
  if (there) {
    T values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = from[i];
    __builtin_memcpy(words, values, sizeof(words));
  }
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]),
               "r"(words[2]), "r"(words[3])
               : "memory");
}

/// 8 e4m3 as 8 elements of T.
template <class T>
__device__ __forceinline__ void store_widened(uint32_t to, uint2 eight) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t two = (i < 2 ? eight.x : eight.y) >> (16 * (i & 1)) & 0xffffu;
    const __half2_raw x =
        __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(two), __NV_E4M3);
    const float2 f = __half22float2(__half2(x));
    words[i] = pack<T>(f.x, f.y);
  }
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]),
               "r"(words[2]), "r"(words[3])
               : "memory");
}

/// 8 e4m3 that begin at `from`.
__device__ __forceinline__ uint2 load_eight(const uint8_t* from, bool vectors) {
  if (vectors) return __ldg(reinterpret_cast<const uint2*>(from));
  uint2 eight{};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    eight.x |= uint32_t{from[i]} << (8 * i);
    eight.y |= uint32_t{from[4 + i]} << (8 * i);
  }
  return eight;
}

/// Brings tiles of keys or values of one head into shared memory: begin(), then finish() once the
/// place is free, then a wait. KV: T or e4m3.
template <int D, class T, class KV>
class KeyLoader {
  using S = Shape<D>;
  static constexpr int kPasses = (S::kKeys * S::kPieces + kThreads - 1) / kThreads;
  static constexpr bool kWidened = !std::is_same_v<T, KV>;

 public:
  __device__ KeyLoader(const PrefillParams& a, const QueryTile& tile, int32_t head)
      : a_(a), keys_(tile.keys), head_(head) {
    if (a.p.block_tables != nullptr) {
      table_ = a.p.block_tables + tile.sequence * a.p.table_stride;
    } else {
      start_ = a.p.kv_start[tile.sequence];
    }
  }

  /// Reads the block ids of a tile; begin() is for the tile read last. Keys past the last share its
  /// block, so that entries of the table which mean nothing are not used.
  __device__ __forceinline__ void look_up(int32_t first) {
    if (table_ == nullptr) return;
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      blocks_[i] = table_[min(first + row_of(i), keys_ - 1) >> a_.p.block_shift];
    }
  }

  /// T: the place must be free already.
  __device__ __forceinline__ void begin(uint32_t to, const ops::KvRows& rows, int32_t first) {
    const KV* data = static_cast<const KV*>(rows.data);
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int row = row_of(i), piece = static_cast<int>(threadIdx.x + i * kThreads) % S::kPieces;
      if (row >= S::kKeys) break;
      const int32_t key = first + row;
      int64_t at = head_ * rows.head_stride;
      if (table_ != nullptr) {
        at += blocks_[i] * rows.block_stride +
              (key & ((1 << a_.p.block_shift) - 1)) * rows.row_stride;
      } else {
        at += (start_ + int64_t{key}) * rows.row_stride;
      }
      if constexpr (kWidened) {
        held_[i] = uint2{};
        if (key < keys_ && piece < D / 8) {
          held_[i] =
              load_eight(reinterpret_cast<const uint8_t*>(data + at) + 8 * piece, a_.vector_kv);
        }
      } else {
        load_piece<D, T>(to + S::offset(row, piece), data + at, piece, key < keys_, a_.vector_kv,
                         data);
      }
    }
  }

  __device__ __forceinline__ void finish([[maybe_unused]] uint32_t to) const {
    if constexpr (kWidened) {
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        const int row = row_of(i);
        if (row >= S::kKeys) break;
        const int piece = static_cast<int>(threadIdx.x + i * kThreads) % S::kPieces;
        store_widened<T>(to + S::offset(row, piece), held_[i]);
      }
    }
  }

 private:
  __device__ static __forceinline__ int row_of(int pass) {
    return static_cast<int>(threadIdx.x + pass * kThreads) / S::kPieces;
  }

  const PrefillParams& a_;
  const int32_t* table_ = nullptr;
  int32_t keys_;
  int32_t start_ = 0;
  int64_t head_;
  int32_t blocks_[kPasses] = {};
  [[maybe_unused]] uint2 held_[kWidened ? kPasses : 1] = {};
};

template <int D, class T, class KV>
__global__ void __launch_bounds__(kThreads) prefill(const __grid_constant__ PrefillParams a) {
  using S = Shape<D>;
  extern __shared__ __align__(128) uint8_t shared[];
  const uint32_t q_at = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t k_at = q_at + kPrefillTileRows * S::kPitch * 16;
  const uint32_t v_at = k_at + S::kKeys * S::kPitch * 16;
  const ops::AttentionProblem& p = a.p;
  const int32_t index = static_cast<int32_t>(blockIdx.x / static_cast<uint32_t>(p.heads));
  const int32_t head = static_cast<int32_t>(blockIdx.x % static_cast<uint32_t>(p.heads));
  QueryTile tile;
  if (!find_tile(a, index, tile)) return;

  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int32_t rows = tile.rows();
  const int64_t first_row = p.query_start[tile.sequence] + int64_t{tile.first};
  const T* q = static_cast<const T*>(p.q) + first_row * p.q_row_stride + head * p.q_head_stride;
  for (int i = threadIdx.x; i < kPrefillTileRows * S::kPieces; i += kThreads) {
    const int row = i / S::kPieces, piece = i % S::kPieces;
    load_piece<D, T>(q_at + S::offset(row, piece), q + row * p.q_row_stride, piece, row < rows,
                     a.vector_q, q);
  }

  // Of the tile, of the warp and of the thread's two rows.
  const KeySpan span = visible(p, tile, tile.first, tile.first + rows - 1);
  const int32_t row0 = tile.first + 16 * warp + lane / 4;
  const KeySpan warp_span = visible(p, tile, tile.first + 16 * warp, tile.first + 16 * warp + 15);
  const KeySpan row_span[2] = {visible(p, tile, row0), visible(p, tile, row0 + 8)};
  const int32_t begin[2] = {row_span[0].begin, row_span[1].begin};
  const int32_t end[2] = {row_span[0].end, row_span[1].end};
  const int32_t all_begin = visible(p, tile, tile.first + 16 * warp + 15).begin;
  const int32_t all_end = visible(p, tile, tile.first + 16 * warp).end;

  const int32_t t_begin = span.begin / S::kKeys;
  const int32_t t_end = span.end > span.begin ? (span.end + S::kKeys - 1) / S::kKeys : t_begin;
  KeyLoader<D, T, KV> loader(a, tile, head / (p.heads / p.kv_heads));
  if (t_begin < t_end) {
    loader.look_up(t_begin * S::kKeys);
    loader.begin(k_at, p.k, t_begin * S::kKeys);
    loader.finish(k_at);
  }
  commit();
  wait_all();
  __syncthreads();

  // Lane i of a group of 8 names row i of one of four 8 x 8 matrices.
  const int q_row = 16 * warp + (lane & 15), q_piece = lane >> 4;
  const int k_row = (lane & 7) + (lane >> 4) * 8, k_piece = (lane >> 3) & 1;
  const int v_row = lane & 15, v_piece = lane >> 4;
  constexpr int kSteps = S::kDim / 16;
  [[maybe_unused]] uint32_t q_held[S::kQueryInRegisters ? kSteps : 1][4];
  if constexpr (S::kQueryInRegisters) {
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
      load_matrices(q_held[d], q_at + S::offset(q_row, 2 * d + q_piece));
    }
  }

  float o[S::kDim / 2] = {};
  SoftmaxRows softmax;
  for (int32_t t = t_begin; t < t_end; ++t) {
    const int32_t first = t * S::kKeys;
    const bool busy = first < warp_span.end && first + S::kKeys > warp_span.begin;
    if (t > t_begin) {
      loader.finish(k_at);
      wait_all();
      __syncthreads();  // keys are there, and the last values have been used
    }
    loader.begin(v_at, p.v, first);
    commit();
    if (t + 1 < t_end) loader.look_up(first + S::kKeys);

    float s[S::kKeys / 2] = {};
    if (busy) {
#pragma unroll
      for (int d = 0; d < kSteps; ++d) {
        uint32_t q_now[4];
        if constexpr (S::kQueryInRegisters) {
#pragma unroll
          for (int i = 0; i < 4; ++i) q_now[i] = q_held[d][i];
        } else {
          load_matrices(q_now, q_at + S::offset(q_row, 2 * d + q_piece));
        }
#pragma unroll
        for (int j = 0; j < S::kKeys / 16; ++j) {
          uint32_t k[4];
          load_matrices(k, k_at + S::offset(16 * j + k_row, 2 * d + k_piece));
          multiply<T>(s + 8 * j, q_now, k[0], k[1]);
          multiply<T>(s + 8 * j + 4, q_now, k[2], k[3]);
        }
      }
    }
    loader.finish(v_at);
    wait_all();
    __syncthreads();  // values are there, and the keys have been used
    if (t + 1 < t_end) {
      loader.begin(k_at, p.k, first + S::kKeys);
      commit();
    }
    if (!busy) continue;

    if (a.score.transform) transform_scores(s, a.score);
    if (first < all_begin || first + S::kKeys > all_end) mask_scores(s, first, begin, end);
    float factor[2];
    if (softmax.update(s, a.score.multiplier, factor)) rescale_rows(o, factor);
#pragma unroll
    for (int j = 0; j < S::kKeys / 16; ++j) {
      const uint32_t weights[4] = {
          pack<T>(s[8 * j], s[8 * j + 1]), pack<T>(s[8 * j + 2], s[8 * j + 3]),
          pack<T>(s[8 * j + 4], s[8 * j + 5]), pack<T>(s[8 * j + 6], s[8 * j + 7])};
#pragma unroll
      for (int d = 0; d < kSteps; ++d) {
        uint32_t v[4];
        load_transposed(v, v_at + S::offset(16 * j + v_row, 2 * d + v_piece));
        multiply<T>(o + 8 * d, weights, v[0], v[1]);
        multiply<T>(o + 8 * d + 4, weights, v[2], v[3]);
      }
    }
  }

  float inverse[2];
  softmax.inverse(inverse);
  inverse[0] *= p.v_scale;
  inverse[1] *= p.v_scale;
  T* const out = static_cast<T*>(p.out) + first_row * p.out_row_stride + head * p.out_head_stride;
  const int32_t own = 16 * warp + lane / 4;
  T* const out_rows[2] = {own < rows ? out + own * p.out_row_stride : nullptr,
                          own + 8 < rows ? out + (own + 8) * p.out_row_stride : nullptr};
  store_rows<T, D>(o, inverse, out_rows, a.vector_out);
}

template <int D, class T, class KV>
Status launch(const char* op, const PrefillParams& a, cudaStream_t stream) {
  MMCORE_RETURN_IF_ERROR(allow_shared(op, prefill<D, T, KV>, Shape<D>::kSharedBytes));
  const auto blocks = static_cast<unsigned>(int64_t{a.max_tiles} * a.p.heads);
  prefill<D, T, KV><<<blocks, kThreads, Shape<D>::kSharedBytes, stream>>>(a);
  return launch_status(op);
}

}  // namespace mma

template <int D>
Status launch_prefill_mma(const char* op, const PrefillParams& a, cudaStream_t stream) {
  if (a.p.dtype == DType::kBFloat16) {
    return mma::launch<D, __nv_bfloat16, __nv_bfloat16>(op, a, stream);
  }
  return mma::launch<D, __half, __half>(op, a, stream);
}

template <int D>
Status launch_prefill_e4m3(const char* op, const PrefillParams& a, cudaStream_t stream) {
  if (a.p.dtype == DType::kBFloat16) {
    return mma::launch<D, __nv_bfloat16, __nv_fp8_e4m3>(op, a, stream);
  }
  return mma::launch<D, __half, __nv_fp8_e4m3>(op, a, stream);
}

}  // namespace mmcore::cuda
