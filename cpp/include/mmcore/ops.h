// The kernels, dispatched by device, dtype and the CPU's features.
//
// Every op checks its tensors once at entry (shape, dtype, stride, alignment, device) and returns
// kInvalidArgument that names the tensor, what it is and what was expected; kernels trust. Nothing
// is allocated on the device; an op that needs scratch memory takes it as `workspace`, and
// *_workspace_bytes() says how much. On the CPU ops return when done.
//
// Floating-point tensors are float32, bfloat16 or float16, the same type in all of one call unless
// said otherwise; accumulation is in float32. The last axis is contiguous (stride 1); other strides
// are free unless said otherwise. T tokens, N sequences, H hidden size, Hq query heads, Hkv
// key/value heads (Hq % Hkv == 0), D head dim, B blocks, P block size.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mmcore/export.h"
#include "mmcore/sampling.h"
#include "mmcore/status.h"
#include "mmcore/stream.h"
#include "mmcore/tensor.h"

namespace mmcore::ops {

/// Which implementation the CPU backend runs. kReference is the specification: plain loops, no
/// intrinsics.
enum class CpuIsa : int32_t {
  kReference = 0,
  kAvx2 = 1,
  kAvx512 = 2,
  kAvx512Bf16 = 3,
  kAmxBf16 = 4
};

/// The best that this machine can run, or what set_cpu_isa chose.
MMCORE_API CpuIsa cpu_isa();
/// Restricts the CPU backend to at most `isa`; kUnsupported if the machine lacks it. For tests and
/// benchmarks.
MMCORE_API Status set_cpu_isa(CpuIsa isa);
MMCORE_API const char* to_string(CpuIsa isa);

/// Threads that CPU ops share, the caller included. Default: the physical cores that this process
/// may use.
MMCORE_API int num_threads();
MMCORE_API void set_num_threads(int n);

enum class Activation : int32_t {
  kNone = 0,
  kGeluErf = 1,
  kGeluTanh = 2,
  kGeluQuick = 3,
  kSilu = 4,
  kRelu = 5
};

// ---- norms
// -----------------------------------------------------------------------------------------------------------

/// out = x / rms(x) * weight, row by row. With `residual`: residual += x first (stored in its
/// dtype), then out is of residual.
struct RmsNormArgs {
  TensorView x;         // [T, H]
  TensorView weight;    // [H]
  TensorView residual;  // [T, H], in and out, or absent
  TensorView out;       // [T, H], may be x
  float eps = 1e-6f;
};
MMCORE_API Status rms_norm(const RmsNormArgs& args, Stream stream = {});

/// out = (x - mean) / sqrt(var + eps) * weight + bias, row by row, var with divisor H.
struct LayerNormArgs {
  TensorView x;       // [T, H]
  TensorView weight;  // [H]
  TensorView bias;    // [H] or absent
  TensorView out;     // [T, H], may be x
  float eps = 1e-5f;
};
MMCORE_API Status layer_norm(const LayerNormArgs& args, Stream stream = {});

// ---- activations
// -----------------------------------------------------------------------------------------------------

/// out = act(x). kGeluErf: x/2 (1 + erf(x/sqrt 2)); kGeluTanh: its tanh form; kGeluQuick: x
/// sigmoid(1.702 x).
MMCORE_API Status activation(const TensorView& x, Activation kind, const TensorView& out,
                             Stream stream = {});

/// out = act(gate) * up, where x = [gate | up] along the last axis. x [T, 2 I], out [T, I].
MMCORE_API Status activation_mul(const TensorView& x, Activation kind, const TensorView& out,
                                 Stream stream = {});

/// out = out + x, [T, H] both, rounded once: a residual where no norm follows that adds it.
MMCORE_API Status add(const TensorView& x, const TensorView& out, Stream stream = {});

// ---- linear
// ----------------------------------------------------------------------------------------------------------

/// out = act(x weight^T + bias). Row m goes to row out_rows[m] of `out`; a negative entry drops the
/// row, others differ from each other. A row's bits never depend on the number of threads; they may
/// differ between calls of at most 8 tokens and longer ones on the CPU, and between any two numbers
/// of tokens on a GPU, where it chooses the kernel. The same call gives the same bits every time.
struct LinearArgs {
  TensorView x;         // [T, K]
  TensorView weight;    // [N, K]
  TensorView bias;      // [N] or absent
  TensorView out;       // [R, N]; R = T without out_rows
  TensorView out_rows;  // int64 [T] or absent
  Activation act = Activation::kNone;
  bool steady_weight = false;  // nothing right in front of the call on the stream writes `weight`,
                               // norms and activations in between left out of account: a GPU may
                               // read it before that has ended
};
MMCORE_API Status linear(const LinearArgs& args, Stream stream = {});

/// The vision projector, fused: out[rows[m]] = act(x w1^T + b1) w2^T + b2, written straight into
/// the decoder's embedding rows. Rows with a negative index are stored nowhere (the CPU does not
/// compute them either), the other indices differ from each other. What the first layer gives is
/// rounded to the tensors' type.
struct VisionProjectorArgs {
  TensorView x;     // [T, K] encoder features
  TensorView w1;    // [M, K]
  TensorView b1;    // [M] or absent
  TensorView w2;    // [H, M]
  TensorView b2;    // [H] or absent
  TensorView rows;  // int64 [T], negative or an index into `out`; absent = 0, 1, 2 ...
  TensorView out;   // [R, H]
  Activation act = Activation::kGeluErf;
  TensorView workspace;  // uint8 [>= vision_projector_workspace_bytes]
};
/// What `device` works with best: a block of rows on the CPU, all rows of a large batch on a GPU.
MMCORE_API int64_t vision_projector_workspace_bytes(int64_t tokens, int64_t intermediate,
                                                    DType dtype, Device device = {});
MMCORE_API Status vision_projector(const VisionProjectorArgs& args, Stream stream = {});

// ---- embedding
// -------------------------------------------------------------------------------------------------------

/// Gathers text rows and copies media rows: out[t] = source[t] >= 0 ? media[source[t]] :
/// table[token_ids[t]]. An index outside the table or media is kInvalidArgument on the CPU and
/// gives a row of zeros on a GPU.
struct EmbeddingMergeArgs {
  TensorView token_ids;  // int32 or int64 [T]
  TensorView table;      // [V, H]
  TensorView source;     // int64 [T] or absent (all text)
  TensorView media;      // [M, H] or absent
  TensorView out;        // [T, H]
};
MMCORE_API Status embedding_merge(const EmbeddingMergeArgs& args, Stream stream = {});

// ---- rotary embedding and KV cache
// -----------------------------------------------------------------------------------

/// Rotates q and k in place and writes k and v to the paged cache, in one pass.
/// cos_sin row p is [cos(p f_0) ... cos(p f_{R/2-1}) | sin(...)], R the rotary dim <= D. Not
/// interleaved: dim i pairs with i + R/2 (Llama, "rotate half"); interleaved: 2i with 2i + 1
/// (GPT-J). Dims from R on pass through. A position without a row in cos_sin or a slot outside the
/// cache is kInvalidArgument on the CPU; on a GPU such a token is not rotated, or not written.
/// Positions, cos_sin and slot_mapping are read while the kernel in front on the stream may still
/// run: that kernel must not be what writes them, nor the one in front of a norm or an activation
/// that is.
///
/// M-RoPE: with `sections` a token has a position in time, one in height and one in width, and each
/// of the R/2 frequencies belongs to one of these axes. `sections` counts each axis' frequencies.
/// They lie one behind the other (Qwen2-VL: t t t h h w w), or `sections_interleaved` in turn as
/// far as there are some of h and w, and t elsewhere (Qwen3-VL: t h w t h w t t).
///
/// A float8_e4m3fn cache receives k * (1 / k_scale) and v * (1 / v_scale), computed in float32,
/// rounded to nearest even and cut off at +-448.
struct RopeKvWriteArgs {
  TensorView q;             // [T, Hq, D], in and out; may be absent (write only)
  TensorView k;             // [T, Hkv, D], in and out
  TensorView v;             // [T, Hkv, D]
  TensorView positions;     // int64 [T], [3, T] with sections, or absent with cos_sin (no rotation)
  TensorView cos_sin;       // float32 [max position, R], or absent (no rotation)
  TensorView k_cache;       // [B, P, Hkv, D] or absent (no write); any float type or float8_e4m3fn
  TensorView v_cache;       // as k_cache
  TensorView slot_mapping;  // int64 [T]: block * P + offset; negative: not written
  bool interleaved = false;
  std::array<int32_t, 3> sections{};  // t, h, w; sum R/2. All 0: one position a token
  bool sections_interleaved = false;
  float k_scale = 1.0f;  // above 0; 1 unless the cache is float8_e4m3fn
  float v_scale = 1.0f;
  // False: with a cache, nobody reads k's rows afterwards, and what they hold is not said. Saves a
  // seventh of the memory traffic on a GPU.
  bool keep_k = true;
};
MMCORE_API Status rope_kv_write(const RopeKvWriteArgs& args, Stream stream = {});

/// Copies whole blocks inside a cache: cache[dst] = cache[src] for each pair, in order.
/// cache [B, P, Hkv, D] or any [B, ...] with contiguous blocks; pairs int64 [n, 2]. A pair that
/// names no block is kInvalidArgument on the CPU and ignored on a GPU.
MMCORE_API Status copy_blocks(const TensorView& cache, const TensorView& pairs, Stream stream = {});

// ---- attention
// -------------------------------------------------------------------------------------------------------

/// What a plan of paged_attention on a GPU is made for, besides the lengths of one step. Sizes and
/// launches depend on nothing else, so that one CUDA graph serves any lengths in these bounds.
/// Layers that have all of this in common share a plan; each other window or causal needs its own.
struct AttentionPlanShape {
  int64_t sequences = 0;      // N of the calls' seq_lens: a bucket's size
  int64_t tokens = 0;         // T of the calls' q
  int64_t max_query_len = 0;  // no sequence has more queries; 0: any number. With 1, or a few that
                              // all heads of a key/value head together make 16 rows of at most,
                              // nothing is launched for prefills
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t window = 0;
  bool causal = true;
  int32_t multiprocessors = 0;  // of the GPU that the calls run on
};
/// int32 words of a plan, a few thousand; -1 for a shape that no kernel takes.
MMCORE_API int64_t attention_plan_words(const AttentionPlanShape& shape);
/// Bytes of partial results; -1 as above. The memory needs no initial value, and all plans and
/// layers that run one after the other may share it.
MMCORE_API int64_t paged_attention_workspace_bytes(const AttentionPlanShape& shape);
/// Writes the plan of one step: how its work is divided over the GPU. All tensors are on the CPU:
/// query_start int32 [n + 1] and seq_lens int32 [n] with n <= shape.sequences (what is missing is
/// empty, whatever the GPU's copies say), plan int32 [>= attention_plan_words(shape)]. O(n +
/// multiprocessors + prefill tokens / 128).
///
/// Copy attention_plan_words(shape) words to the GPU before the step's first layer, in the order of
/// the stream. Decode reads plan and block tables while the kernel in front of it on the stream may
/// still run: that kernel must not be what writes them. Kernels write to the plan and leave it as
/// it was: it serves any number of calls, one at a time, and is copied again only when a length has
/// changed. The plan says which lengths are used; it must agree with the query_start and seq_lens
/// of the calls where these are not empty. The same lengths and shape give the same bits of output;
/// `sequences`, `tokens` and `max_query_len` make no difference to them.
///
/// `settled`: the kernel in front of each call writes no keys or values that the call reads but
/// those of its sequences' own query tokens, as rope_kv_write does unless a sequence shares a block
/// with another that fills it in this step. Decode then reads the older ones while that kernel may
/// still run. It makes no difference to the result.
MMCORE_API Status plan_paged_attention(const TensorView& query_start, const TensorView& seq_lens,
                                       const AttentionPlanShape& shape, const TensorView& plan,
                                       bool settled = false);

/// Attention of a mixed batch (prefills, chunks, decodes) over the paged cache, whose newest tokens
/// are already written. Query i of sequence n is at position seq_lens[n] - query_len(n) + i; it
/// sees keys at positions
///   [max(0, pos - window + 1), causal ? pos : seq_lens[n] - 1]          (window 0 = no limit;
///   counts the query itself)
/// score = scale q.k; with soft_cap c > 0: c tanh(score / c). A sequence of length 0 has no rows.
/// A float8_e4m3fn cache stands for k_scale times its keys and v_scale times its values.
struct PagedAttentionArgs {
  TensorView q;             // [T, Hq, D]; D in {32, 64, 72, 80, 96, 128, 256}
  TensorView k_cache;       // [B, P, Hkv, D]; any float type or float8_e4m3fn
  TensorView v_cache;       // as k_cache
  TensorView block_tables;  // int32 [N, W]
  TensorView query_start;   // int32 [N + 1]
  TensorView seq_lens;      // int32 [N]
  TensorView out;           // [T, Hq, D]
  float scale = 1.0f;
  float soft_cap = 0.0f;
  int32_t window = 0;
  bool causal = true;
  // Needed on a GPU, where nothing but them says how much work there is; ignored on the CPU. See
  // AttentionPlanShape, whose sequences are seq_lens' N and whose tokens are q's T.
  TensorView plan{};          // int32 [>= attention_plan_words], in GPU memory
  TensorView workspace{};     // uint8 [>= paged_attention_workspace_bytes], 16-byte aligned
  int64_t max_query_len = 0;  // as in the plan's shape
  float k_scale = 1.0f;       // above 0; 1 unless the cache is float8_e4m3fn
  float v_scale = 1.0f;
};
MMCORE_API Status paged_attention(const PagedAttentionArgs& args, Stream stream = {});

/// Attention over contiguous keys of variable length: an encoder's, or any without a cache.
/// Sequence n: queries [cu_q[n], cu_q[n+1]), keys [cu_k[n], cu_k[n+1]); causal aligns the last
/// query with the last key.
struct VarlenAttentionArgs {
  TensorView q;     // [Tq, Hq, D]
  TensorView k;     // [Tk, Hkv, D]
  TensorView v;     // [Tk, Hkv, D]
  TensorView cu_q;  // int32 [N + 1]
  TensorView cu_k;  // int32 [N + 1]
  TensorView out;   // [Tq, Hq, D]
  float scale = 1.0f;
  float soft_cap = 0.0f;
  int32_t window = 0;
  bool causal = false;
};
MMCORE_API Status varlen_attention(const VarlenAttentionArgs& args, Stream stream = {});

// ---- sampling
// --------------------------------------------------------------------------------------------------------

/// Picks one token a row of float32, bfloat16 or float16 logits [S, V]. Order: logprobs from raw
/// logits; allowed and banned tokens, logit bias; repetition, frequency, presence penalties;
/// temperature; top-k, top-p, min-p; draw. Ties go to the smaller token id. The draw is a pure
/// function of (row, seed, counter): rows never influence each other. It takes the first token in
/// order of ids whose cumulative probability exceeds uniform(seed, counter). Token ids outside
/// [0, V) are ignored: a prompt may hold placeholders. With num_logprobs = k the list holds the
/// sampled token and then the min(k, V) best ones that are possible, the sampled one again if it is
/// among them; rank counts the tokens that are more likely, or as likely and smaller.
/// A row with parameters out of range or a NaN among its logits, or where nothing is left to
/// choose, is kInvalidArgument in `row_status`, its token -1; without `row_status` the first such
/// row is what the call returns. Other rows are not affected.
MMCORE_API Status sample(const TensorView& logits, std::span<const SampleRow> rows,
                         std::vector<SampledToken>& out, std::vector<Status>* row_status = nullptr,
                         Stream stream = {});

/// sample without penalties, biases and logprobs, with its parameters in tensors and without
/// waiting: it can be captured in a CUDA graph. Parameters as in SampleRow, seed and counter as the
/// bits of a uint64. A row for which sample has an error gives token -1.
struct SampleTensorsArgs {
  TensorView logits;       // [S, V]
  TensorView temperature;  // float32 [S]
  TensorView top_p;        // float32 [S]
  TensorView min_p;        // float32 [S]
  TensorView top_k;        // int32 [S]
  TensorView seed;         // int64 [S]
  TensorView counter;      // int64 [S]
  TensorView tokens;       // int32 [S], out
  TensorView workspace;    // uint8 [>= sample_tensors_workspace_bytes]; absent on the CPU
};
MMCORE_API int64_t sample_tensors_workspace_bytes(int64_t rows, int64_t vocab);
MMCORE_API Status sample_tensors(const SampleTensorsArgs& args, Stream stream = {});

/// The generator behind sample: a uniform float in [0, 1) with 24 bits, Philox4x32-10 keyed by seed
/// with counter (counter, 0). The same on every device.
MMCORE_API float uniform(uint64_t seed, uint64_t counter);

/// Logprobs of given tokens and of the best `num` alternatives, for prompt logprobs: lists as those
/// of sample; num -1 leaves a row's list empty. A bad target or row leaves its list empty too and
/// is named by the Status, after all other rows have been answered.
MMCORE_API Status logprobs(const TensorView& logits, std::span<const TokenId> targets,
                           std::span<const int32_t> num,
                           std::vector<std::vector<TokenLogprob>>& out, Stream stream = {});

}  // namespace mmcore::ops
