// Edits logits as cpp/src/ops/logit_edits.cpp does, on a float32 copy of the row: one block a row.
//
// Lists are worked on in parallel; where order matters (several biases of one token) or a token may
// be named more than once, one thread does all of that token's work. The arithmetic is spelled out
// so that it is not contracted into fused multiply-adds: the bits are those of the CPU.
#include "host/device.h"
#include "sampling/vocab_row.cuh"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

constexpr int kSeen = 1 << 30;  // a mark of the repetition penalty, above all counts

struct EditProblem {
  Rows rows;
  EditLists lists;
};

template <class F>
__device__ void for_each_inside(const int32_t* tokens, int begin, int end, int vocab, F&& f) {
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += static_cast<int>(blockDim.x)) {
    const int token = tokens[i];
    if (token >= 0 && token < vocab) f(token);
  }
}

template <class T>
__device__ bool copy_row(const RowReader<T>& raw, float* row, bool masked) {
  bool clean = true;
  const int vocab = raw.vocab();
  for (int at = static_cast<int>(threadIdx.x) * kLane; at < vocab;
       at += static_cast<int>(blockDim.x) * kLane) {
    float x[kLane];
    raw.read(at, x);
#pragma unroll
    for (int j = 0; j < kLane; ++j) {
      clean = clean && x[j] == x[j];
      if (at + j < vocab) row[at + j] = masked ? kMinusInfinity : x[j];
    }
  }
  return clean;
}

/// The thread of a token's first bias adds all of them, in order.
__device__ void add_biases(const EditLists& lists, const RowEdits& e, float* row, int vocab) {
  for (int i = e.bias_begin + static_cast<int>(threadIdx.x); i < e.bias_end;
       i += static_cast<int>(blockDim.x)) {
    const int token = lists.bias_tokens[i];
    if (token < 0 || token >= vocab) continue;
    bool first = true;
    for (int j = e.bias_begin; j < i && first; ++j) first = lists.bias_tokens[j] != token;
    if (!first) continue;
    float value = row[token];
    for (int j = i; j < e.bias_end; ++j) {
      if (lists.bias_tokens[j] == token) value = __fadd_rn(value, lists.bias[j]);
    }
    row[token] = value;
  }
}

template <class T>
__global__ void __launch_bounds__(1024) edit_kernel(const __grid_constant__ EditProblem p) {
  const EditLists& lists = p.lists;
  const RowEdits e = lists.edits[blockIdx.x];
  const auto raw = RowReader<T>::raw(p.rows, e.row);
  const int vocab = raw.vocab();
  float* row = p.rows.edited + e.slot * p.rows.edited_stride;
  int32_t* marks = lists.marks + e.slot * p.rows.edited_stride;

  const bool masked = e.allowed_begin < e.allowed_end;
  const bool clean = copy_row(raw, row, masked);
  if (__syncthreads_or(clean ? 0 : 1) != 0 && threadIdx.x == 0) lists.raw_nans[e.row] = 1;
  if (masked) {
    for_each_inside(lists.tokens, e.allowed_begin, e.allowed_end, vocab,
                    [&](int token) { row[token] = raw[token]; });
    __syncthreads();
  }
  for_each_inside(lists.tokens, e.banned_begin, e.banned_end, vocab,
                  [&](int token) { row[token] = kMinusInfinity; });
  __syncthreads();
  add_biases(lists, e, row, vocab);
  __syncthreads();
  if (e.repetition_penalty != 1.0f) {
    const auto once = [&](int token) {
      if (atomicExch(&marks[token], kSeen) != 0) return;
      const float value = row[token];
      row[token] = value > 0.0f ? __fdiv_rn(value, e.repetition_penalty)
                                : __fmul_rn(value, e.repetition_penalty);
    };
    for_each_inside(lists.tokens, e.prompt_begin, e.prompt_end, vocab, once);
    for_each_inside(lists.tokens, e.output_begin, e.output_end, vocab, once);
    __syncthreads();
    const auto clear = [&](int token) { marks[token] = 0; };
    for_each_inside(lists.tokens, e.prompt_begin, e.prompt_end, vocab, clear);
    for_each_inside(lists.tokens, e.output_begin, e.output_end, vocab, clear);
    __syncthreads();
  }
  if (e.frequency_penalty != 0.0f || e.presence_penalty != 0.0f) {
    for_each_inside(lists.tokens, e.output_begin, e.output_end, vocab,
                    [&](int token) { atomicAdd(&marks[token], 1); });
    __syncthreads();
    for_each_inside(lists.tokens, e.output_begin, e.output_end, vocab, [&](int token) {
      const int count = atomicExch(&marks[token], 0);
      if (count == 0) return;  // done at another occurrence
      const float penalty =
          __fadd_rn(__fmul_rn(e.frequency_penalty, static_cast<float>(count)), e.presence_penalty);
      row[token] = __fsub_rn(row[token], penalty);
    });
  }
}

}  // namespace

Status edit_rows(const Rows& rows, const EditLists& lists, cudaStream_t stream) {
  if (lists.count == 0) return {};
  const EditProblem p{.rows = rows, .lists = lists};
  return dispatch_float(rows.dtype, "sample", [&]<class E>() -> Status {
    edit_kernel<device_t<E>><<<static_cast<unsigned>(lists.count), 1024, 0, stream>>>(p);
    return launch_status("sample");
  });
}

}  // namespace mmcore::cuda
