// rope_kv_write: q, k and v of a token in one pass.
//
// A block works on one token, or on a share of its heads where tokens are few. Its threads form
// [heads side by side, units], and a unit is two vectors of a head, R/2 apart where they are
// rotated together: the cosines and sines of a unit are read once and serve all heads of the
// thread.
//
//   head   [ 0 ... R/2 | R/2 ... R | R ... D ]      units: (R/2)/W pairs, then (D-R)/W single
//   vectors
//
// What does not come from the kernel in front, the token's slot, cosines and sines, is read before
// that has ended: a few tokens then cost one read and one write behind it.
//
// [2048 tokens, 32+32+32 heads of 128] bf16 on an H100, without the keys' own rows: 16.8 MB x (3
// reads + 3 writes) = 101 MB, 33.4 us at 3.0 TB/s.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "device/convert.cuh"
#include "device/overlap.cuh"
#include "device/vec.cuh"
#include "host/device.h"
#include "host/launch.h"
#include "ops/cuda_backend.h"
#include "rope_turn.cuh"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

__device__ __forceinline__ int64_t offset_of(const CacheRows& cache, int64_t block, int64_t row,
                                             int head) {
  return block * cache.block_stride + row * cache.row_stride + head * cache.head_stride;
}

template <class C>
__device__ __forceinline__ float scaled(float x, float factor) {
  return std::is_same_v<C, __nv_fp8_e4m3> ? x * factor : x;
}

/// Stores in pieces of at most 16 bytes, so that a float32 cache of bf16 keys needs no more than
/// 16-byte alignment.
template <class C, int kWidth>
__device__ __forceinline__ void store_wide(C* to, const float (&x)[kWidth]) {
  constexpr int kPiece = kWidth < kVecWidth<C> ? kWidth : kVecWidth<C>;
#pragma unroll
  for (int begin = 0; begin < kWidth; begin += kPiece) {
    Vec<C, kPiece> piece;
#pragma unroll
    for (int j = 0; j < kPiece; ++j) piece.at[j] = from_float<C>(x[begin + j]);
    store(to + begin, piece);
  }
}

template <class T, class C, int kWidth>
__device__ __forceinline__ void write_cache(C* to, const Vec<T, kWidth>& v, float factor) {
  float x[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) x[j] = scaled<C>(to_float(v.at[j]), factor);
  store_wide<C, kWidth>(to, x);
}

/// kHeads: how many heads a thread has in flight.
template <class T, class C, int kWidth, int kHeads>
__global__ void __launch_bounds__(256) rope_kernel(const __grid_constant__ RopeProblem p) {
  using V = Vec<T, kWidth>;
  const int unit = static_cast<int>(threadIdx.x);
  const int64_t token = blockIdx.x / static_cast<unsigned>(p.splits);
  const int split = static_cast<int>(blockIdx.x - token * p.splits);
  const int heads = p.q_heads + p.kv_heads + p.v_heads;
  const int end = min(heads, (split + 1) * p.heads_a_block);
  const bool paired = unit < p.pair_units;
  const int first = paired ? unit * kWidth : p.pair_units * kWidth + unit * kWidth;
  const int apart = p.pair_units * kWidth;  // to the pair's second vector

  int64_t slot = p.k_cache.data != nullptr ? p.slots[token] : -1;
  if (slot >= p.num_slots) slot = -1;  // it would lead out of the cache
  const TurnRows turn_rows(p, token);
  const bool rotates = turn_rows.there && paired;
  Turn<kWidth> turn;
  if (rotates) turn = read_turn<kWidth>(turn_rows, p, unit);
  wait_for_predecessor();
  for (int head0 = split * p.heads_a_block + static_cast<int>(threadIdx.y); head0 < end;
       head0 += kHeads * static_cast<int>(blockDim.y)) {
    V a[kHeads], b[kHeads];
    T* from[kHeads];
#pragma unroll
    for (int u = 0; u < kHeads; ++u) {
      const int head = head0 + u * static_cast<int>(blockDim.y);
      if (head >= end) continue;
      const bool is_q = head < p.q_heads;
      const bool is_k = head < p.q_heads + p.kv_heads;
      const Heads rows = is_q ? p.q : is_k ? p.k : p.v;
      const int own = is_q ? head : is_k ? head - p.q_heads : head - p.q_heads - p.kv_heads;
      from[u] =
          static_cast<T*>(rows.data) + token * rows.row_stride + own * rows.head_stride + first;
      a[u] = load<V>(from[u]);
      if (paired) b[u] = load<V>(from[u] + apart);
    }
#pragma unroll
    for (int u = 0; u < kHeads; ++u) {
      const int head = head0 + u * static_cast<int>(blockDim.y);
      if (head >= end) continue;
      const bool is_q = head < p.q_heads;
      const bool is_k = !is_q && head < p.q_heads + p.kv_heads;
      if (rotates && (is_q || is_k)) {
        rotate<T, kWidth>(a[u], b[u], turn, p.interleaved);
        if (is_q || p.keep_k) {
          store(from[u], a[u]);
          store(from[u] + apart, b[u]);
        }
      }
      if (is_q || slot < 0) continue;
      const int64_t block = p.block_shift >= 0 ? slot >> p.block_shift : slot / p.block_size;
      const CacheRows cache = is_k ? p.k_cache : p.v_cache;
      const int own = is_k ? head - p.q_heads : head - p.q_heads - p.kv_heads;
      C* to = static_cast<C*>(cache.data) +
              offset_of(cache, block, slot - block * p.block_size, own) + first;
      const float factor = is_k ? p.k_factor : p.v_factor;
      write_cache<T, C, kWidth>(to, a[u], factor);
      if (paired) write_cache<T, C, kWidth>(to + apart, b[u], factor);
    }
  }
}

/// Any head dim, alignment and rotary dim: a thread takes one pair or one element that passes
/// through, of one head.
template <class T, class C>
__global__ void __launch_bounds__(256) rope_any_kernel(const __grid_constant__ RopeProblem p) {
  wait_for_predecessor();
  const int64_t token = blockIdx.x;
  int64_t slot = -1;
  if (p.k_cache.data != nullptr) slot = p.slots[token];
  const TurnRows turn_rows(p, token);
  const bool rotates = turn_rows.there;
  const bool writes = slot >= 0 && slot < p.num_slots;
  const int64_t block = slot / p.block_size;
  const int half = p.rotary_dim / 2;
  const int units = half + p.head_dim - p.rotary_dim;
  const int heads = p.q_heads + p.kv_heads + p.v_heads;
  for (int item = static_cast<int>(threadIdx.x); item < heads * units;
       item += static_cast<int>(blockDim.x)) {
    const int head = item / units;
    const int unit = item - head * units;
    const bool is_q = head < p.q_heads;
    const bool is_k = !is_q && head < p.q_heads + p.kv_heads;
    const Heads rows = is_q ? p.q : is_k ? p.k : p.v;
    const int own = is_q ? head : is_k ? head - p.q_heads : head - p.q_heads - p.kv_heads;
    const bool paired = unit < half;
    const int i = !paired ? half + unit : p.interleaved ? 2 * unit : unit;
    const int j = !paired ? i : p.interleaved ? i + 1 : i + half;
    T* x = static_cast<T*>(rows.data) + token * rows.row_stride + own * rows.head_stride;
    T a = x[i], b = x[j];
    if (rotates && paired && (is_q || is_k)) {
      const float* row = turn_rows.row(p, unit);
      const float c = row[unit], s = row[half + unit];
      const float first = to_float(a), second = to_float(b);
      a = from_float<T>(first * c - second * s);
      b = from_float<T>(second * c + first * s);
      x[i] = a;
      x[j] = b;
    }
    if (is_q || !writes) continue;
    const CacheRows cache = is_k ? p.k_cache : p.v_cache;
    C* to = static_cast<C*>(cache.data) + offset_of(cache, block, slot - block * p.block_size, own);
    const float factor = is_k ? p.k_factor : p.v_factor;
    to[i] = from_float<C>(scaled<C>(to_float(a), factor));
    if (paired) to[j] = from_float<C>(scaled<C>(to_float(b), factor));
  }
}

bool aligned_to(const Heads& rows, int64_t bytes, int64_t element) {
  return reinterpret_cast<uintptr_t>(rows.data) % static_cast<uintptr_t>(bytes) == 0 &&
         rows.row_stride * element % bytes == 0 && rows.head_stride * element % bytes == 0;
}

bool aligned_to(const CacheRows& rows, int64_t bytes, int64_t element) {
  return reinterpret_cast<uintptr_t>(rows.data) % static_cast<uintptr_t>(bytes) == 0 &&
         rows.block_stride * element % bytes == 0 && rows.row_stride * element % bytes == 0 &&
         rows.head_stride * element % bytes == 0;
}

/// Splits heads into units of vectors of `width`; false where they do not fit.
bool plan_units(RopeProblem& p, int width) {
  const bool rotates = p.positions != nullptr && p.rotary_dim > 0;
  // Without a rotation any two halves will do.
  const int pair_dims = rotates ? p.rotary_dim : p.head_dim / (2 * width) * (2 * width);
  if (pair_dims % (2 * width) != 0 || (p.head_dim - pair_dims) % width != 0) return false;
  p.pair_units = pair_dims / (2 * width);
  p.units = p.pair_units + (p.head_dim - pair_dims) / width;
  return p.units <= 256;
}

template <class T, class C, int kWidth>
Status launch(RopeProblem p, int64_t tokens, const DeviceFacts& facts, cudaStream_t stream) {
  const int heads = p.q_heads + p.kv_heads + p.v_heads;
  // Small blocks: many of them on a multiprocessor read while others write.
  const int side_by_side = std::max(1, 128 / p.units);
  // Few tokens: more blocks with fewer heads each, until there are four for every multiprocessor.
  // Many: no more heads a block than its threads have in flight at once.
  const int64_t wanted = std::max<int64_t>(1, 4 * facts.multiprocessors / tokens);
  const int64_t most = std::max(1, (heads + 7) / 8);
  const int64_t fewest = (heads + 3 * side_by_side - 1) / (3 * side_by_side);
  p.splits = static_cast<int32_t>(std::clamp(wanted, std::min(fewest, most), most));
  p.heads_a_block = (heads + p.splits - 1) / p.splits;
  p.splits = (heads + p.heads_a_block - 1) / p.heads_a_block;
  const int64_t blocks = tokens * p.splits;
  if (blocks > std::numeric_limits<int32_t>::max()) {
    return Status::unsupported("rope_kv_write: " + std::to_string(tokens) +
                               " tokens are too many for one call");
  }
  // As few threads as go through a block's heads in that many passes.
  const int passes = (p.heads_a_block + side_by_side - 1) / side_by_side;
  const int rows = (p.heads_a_block + passes - 1) / passes;
  const dim3 block(static_cast<unsigned>(p.units), static_cast<unsigned>(rows));
  launch_overlapped(passes == 1 ? rope_kernel<T, C, kWidth, 1> : rope_kernel<T, C, kWidth, 3>,
                    blocks, block, facts.capability, facts.multiprocessors, stream, p);
  return launch_status("rope_kv_write");
}

template <class T, class C>
Status dispatch_width(RopeProblem& p, int64_t tokens, const DeviceFacts& facts,
                      cudaStream_t stream) {
  constexpr int kWidth = kVecWidth<T>;
  constexpr int64_t kCacheBytes = std::min<int64_t>(16, kWidth * sizeof(C));
  constexpr int64_t kElement = sizeof(T), kCacheElement = sizeof(C);
  const bool cache_fits =
      p.k_cache.data == nullptr || (aligned_to(p.k_cache, kCacheBytes, kCacheElement) &&
                                    aligned_to(p.v_cache, kCacheBytes, kCacheElement));
  if (aligned_to(p.q, 16, kElement) && aligned_to(p.k, 16, kElement) &&
      aligned_to(p.v, 16, kElement) && cache_fits && rows_aligned16<float>(p.cos_sin, 0) &&
      p.cos_sin_stride % 4 == 0 && plan_units(p, kWidth)) {
    return launch<T, C, kWidth>(p, tokens, facts, stream);
  }
  if (tokens > std::numeric_limits<int32_t>::max()) {
    return Status::unsupported("rope_kv_write: " + std::to_string(tokens) +
                               " tokens are too many for one call");
  }
  launch_overlapped(rope_any_kernel<T, C>, tokens, dim3(256), facts.capability,
                    facts.multiprocessors, stream, p);
  return launch_status("rope_kv_write");
}

Heads heads_of(const TensorView& t) {
  return t.present ? Heads{t.data, t.stride(0), t.stride(1)} : Heads{};
}

CacheRows cache_of(const TensorView& t) {
  return t.present ? CacheRows{t.data, t.stride(0), t.stride(1), t.stride(2)} : CacheRows{};
}

}  // namespace
}  // namespace mmcore::cuda

namespace mmcore::ops::cuda {

namespace mc = mmcore::cuda;

Status rope_kv_write(const RopeKvWriteArgs& args, Stream stream) {
  const int64_t tokens = args.k.size(0);
  const bool writes = args.k_cache.present, rotates = args.cos_sin.present;
  mc::RopeProblem p{};
  p.q = mc::heads_of(args.q);
  p.k = mc::heads_of(args.k);
  p.v = writes ? mc::heads_of(args.v) : mc::Heads{};
  p.k_cache = mc::cache_of(args.k_cache);
  p.v_cache = mc::cache_of(args.v_cache);
  p.block_size = 1;
  p.q_heads = static_cast<int32_t>(args.q.present ? args.q.size(1) : 0);
  p.kv_heads = static_cast<int32_t>(args.k.size(1));
  p.v_heads = writes ? p.kv_heads : 0;
  p.head_dim = static_cast<int32_t>(args.k.size(2));
  p.interleaved = args.interleaved;
  p.k_factor = 1.0f / args.k_scale;
  p.v_factor = 1.0f / args.v_scale;
  p.keep_k = args.keep_k || !writes;
  if (rotates) {
    p.positions = args.positions.ptr<const int64_t>();
    p.cos_sin = args.cos_sin.ptr<const float>();
    p.cos_sin_stride = args.cos_sin.stride(0);
    p.max_position = args.cos_sin.size(0);
    p.rotary_dim = static_cast<int32_t>(args.cos_sin.size(1));
    // The entry has checked that positions have a row for each axis exactly then.
    p.axis_stride = args.positions.rank == 2 ? args.positions.stride(0) : 0;
    for (size_t axis = 0; axis < 3; ++axis) p.sections[axis] = args.sections[axis];
    p.sections_interleaved = args.sections_interleaved;
  }
  if (writes) {
    p.slots = args.slot_mapping.ptr<const int64_t>();
    p.block_size = std::max<int64_t>(1, args.k_cache.size(1));
    p.num_slots = args.k_cache.size(0) * args.k_cache.size(1);
    while ((int64_t{1} << p.block_shift) < p.block_size) ++p.block_shift;
    if ((int64_t{1} << p.block_shift) != p.block_size) p.block_shift = -1;
  }
  if (!writes && !rotates) return {};
  if (tokens == 0 || p.head_dim == 0 || p.q_heads + p.kv_heads + p.v_heads == 0) return {};
  const auto facts = mc::device_facts(args.k.device);
  if (!facts.ok()) return facts.status();
  const mc::DeviceGuard guard(args.k.device);
  return dispatch_float(args.k.dtype, "rope_kv_write", [&]<class E>() -> Status {
    const DType cache = writes ? args.k_cache.dtype : args.k.dtype;
    return dispatch_cache(cache, "rope_kv_write", [&]<class F>() -> Status {
      return mc::dispatch_width<mc::device_t<E>, mc::device_t<F>>(p, tokens, *facts.value(),
                                                                  mc::stream_of(stream));
    });
  });
}

}  // namespace mmcore::ops::cuda
