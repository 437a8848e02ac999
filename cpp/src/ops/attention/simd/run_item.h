// The entry of one instruction set's attention: picks the path and the types of an item.
#pragma once

#include "ops/attention/simd/amx.h"
#include "ops/attention/simd/direct.h"
#include "ops/attention/simd/pairs.h"
#include "ops/attention/simd/tile.h"

namespace mmcore::ops {
namespace {

inline void pack_queries_of(const AttentionProblem& p, const AttentionItem& item, int padded,
                            float* to) {
  if (p.dtype == DType::kFloat32) return pack_queries<float>(p, item, padded, to);
  if (p.dtype == DType::kBFloat16) return pack_queries<bf16>(p, item, padded, to);
  pack_queries<f16>(p, item, padded, to);
}

template <class KV>
void attend_in_float(const AttentionProblem& p, const AttentionItem& item, const Scratch& s) {
  const int rows = item.queries * item.heads;
  if (item.direct) {
    pack_queries_of(p, item, rows, s.q);
    attend_directly<WideDot<KV>, KV>(p, item, s, s.q, padded_dim(p.head_dim));
  } else {
    pack_queries_of(p, item, round_up(rows, FloatTile::kPadding), s.q);
    attend_by_tiles<FloatTile, KV>(
        p, item, s,
        [](const KV* const* keys, int count, int dim, float* to) {
          pack_keys(keys, count, dim, to);
        },
        pack_values<KV>);
  }
}

#if defined(__AVX512BF16__)
inline void attend_in_pairs(const AttentionProblem& p, const AttentionItem& item,
                            const Scratch& s) {
  if (item.direct) return attend_directly_in_pairs(p, item, s);
#if defined(__AMX_BF16__)
  const simd::TileRegisters registers;
  attend_by_pair_tiles<AmxTile>(p, item, s, pack_amx_keys, pack_amx_values);
#else
  attend_by_pair_tiles<PairTile>(p, item, s, pack_key_pairs, pack_value_pairs);
#endif
}
#endif

inline void run_item(const AttentionProblem& p, const AttentionItem& item, void* memory,
                     float* partials) {
  const Scratch s(memory, p.head_dim);
#if defined(__AVX512BF16__)
  if (are_pairs(p)) {
    attend_in_pairs(p, item, s);
    return finish(p, item, s, partials);
  }
#endif
  if (p.kv_dtype == DType::kFloat32) {
    attend_in_float<float>(p, item, s);
  } else if (p.kv_dtype == DType::kBFloat16) {
    attend_in_float<bf16>(p, item, s);
  } else if (p.kv_dtype == DType::kFloat16) {
    attend_in_float<f16>(p, item, s);
  } else {
    attend_in_float<f8e4m3>(p, item, s);
  }
  finish(p, item, s, partials);
}

}  // namespace
}  // namespace mmcore::ops
