// Random batches of attention and their answer in double precision, computed from the definition in
// mmcore/ops.h without any of its code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mmcore/ops.h"
#include "ops/host_tensor.h"

namespace mmcore::ops::testing {

struct AttentionCase {
  DType dtype = DType::kFloat32;
  DType kv_dtype = DType::kFloat32;
  int64_t head_dim = 64;
  int64_t kv_heads = 1;
  int64_t group = 1;  // query heads that share a key/value head
  int64_t block_size = 16;
  int64_t gap = 0;  // between the rows of every tensor
  std::vector<int64_t> query_lens;
  std::vector<int64_t> key_lens;
  float scale = 0.125f;
  float soft_cap = 0;
  float k_scale = 1;  // of a float8_e4m3fn cache
  float v_scale = 1;
  int32_t window = 0;
  bool causal = true;

  /// `more_queries`: sequences may have more queries than keys, as in varlen_attention.
  static AttentionCase random(Rng& rng, bool more_queries);
  /// Keys and values as float8_e4m3fn, with scales.
  AttentionCase with_float8(Rng& rng) const;
  std::string describe() const;
  int64_t heads() const { return kv_heads * group; }
  int64_t queries() const;
  int64_t keys() const;
};

/// Queries, and the keys and values of all sequences one behind the other.
struct AttentionData {
  HostTensor q;  // [queries, heads, D]
  HostTensor k;  // [keys, kv_heads, D]
  HostTensor v;
  HostTensor out;
  HostTensor query_start;
  HostTensor key_start;

  AttentionData(const AttentionCase& c, Rng& rng);
};

/// The same keys and values in blocks at random places of a cache; whatever is not theirs is NaN.
struct PagedCache {
  HostTensor k;  // [B, P, kv_heads, D]
  HostTensor v;
  HostTensor tables;  // [N, W], -1 where a sequence has no block
  HostTensor seq_lens;

  PagedCache(const AttentionCase& c, const AttentionData& data, Rng& rng);
};

/// [queries * heads * D], row-major.
std::vector<double> attention_oracle(const AttentionCase& c, const AttentionData& data);

/// Fails the current test where `out` is further from `expected` than its dtype explains.
void expect_close(const HostTensor& out, const std::vector<double>& expected);

PagedAttentionArgs paged_args(const AttentionCase& c, const AttentionData& data,
                              const PagedCache& cache);
VarlenAttentionArgs varlen_args(const AttentionCase& c, const AttentionData& data);

}  // namespace mmcore::ops::testing
