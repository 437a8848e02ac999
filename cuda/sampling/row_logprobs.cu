// Log-probabilities of one token a row and of the row's best tokens, under the unedited logits. One
// block a request: segment maxima, then the sum of weights and the token's rank in one more pass;
// the best tokens are cut off as top-k does, gathered and put in order by counting.
#include <cmath>

#include "host/device.h"
#include "sampling/row_cut.cuh"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

struct LogprobProblem {
  Rows rows;
  const LogprobRequest* requests;
  const int32_t* tokens;
  LogprobEntry* entries;
  int32_t* outcomes;
  int32_t segments;
  int32_t segment_tokens;
};

struct LogprobShared {
  RowShared row;
  uint32_t best_key[kMostLogprobs];
  int32_t best_token[kMostLogprobs];
  int32_t found;
};
static_assert(sizeof(LogprobShared) <= 48 * 1024);

template <class T>
class RowOfLogprobs {
 public:
  __device__ RowOfLogprobs(const LogprobProblem& p, const LogprobRequest& request,
                           LogprobShared& shared, RowBlock& block)
      : row_(RowReader<T>::raw(p.rows, request.row)),
        shared_(shared),
        block_(block),
        segments_(p.segments),
        segment_tokens_(p.segment_tokens) {}

  /// The largest key of the row.
  __device__ uint32_t find_max() {
    uint32_t best = 0;
    for_each_segment([&](int s, int begin, int end) {
      const SegmentInfo info = segment_max(row_, begin, end);
      if (lane() == 0) shared_.row.segment_key[s] = info.key;
      best = max(best, info.key);
    });
    return block_.max(best);
  }

  /// Sum of e^(x - max), and 1 + the number of tokens before `token` in the order of likelihood.
  __device__ void weigh(float largest, int token, double& total, int& rank) {
    const float value = row_[token];
    double sum = 0;
    int before = 0;
    for_each_segment([&](int, int begin, int end) {
      for (int tile = begin; tile < end; tile += kTile) {
        float x[kLane];
        row_.read(tile + lane() * kLane, x);
        float part = 0.0f;
#pragma unroll
        for (int j = 0; j < kLane; ++j) {
          part += weight_of(x[j], largest, 1.0f);
          const int id = tile + lane() * kLane + j;
          before += id < row_.vocab() && (x[j] > value || (x[j] == value && id < token)) ? 1 : 0;
        }
        sum += part;
      }
    });
    total = block_.sum(sum);
    rank = 1 + block_.sum(before);
  }

  /// Puts the `num` best tokens above -inf into shared memory, in any order; returns how many.
  __device__ int gather(int num, uint32_t best) {
    const int thread = static_cast<int>(threadIdx.x);
    const uint32_t own = thread < segments_ ? shared_.row.segment_key[thread] : 0u;
    const uint32_t at_least = kth_segment_key(own, num, segments_);
    const uint32_t lo = at_least > kLowestKey ? at_least : kLowestKey + 1;
    const CutKeys<T, false> keys{row_, 0.0f, 1.0f, 0};
    const Cut cut = find_cut(keys, shared_.row, RowTeam<1>(block_), segments_, segment_tokens_, lo,
                             best + 1, static_cast<double>(num), Group{});
    const int ties = num - static_cast<int>(cut.above);
    if (thread == 0) shared_.found = 0;
    // Ties are taken in order of ids: how many come before each segment.
    auto* tied = reinterpret_cast<int32_t*>(shared_.row.list);
    if (thread < segments_) tied[thread] = 0;
    __syncthreads();
    for_each_segment([&](int s, int begin, int end) {
      if (shared_.row.segment_key[s] < cut.key) return;
      int count = 0;
      for_each_key(begin, end, [&](int, uint32_t key) { count += key == cut.key ? 1 : 0; });
      count = __reduce_add_sync(kFullWarp, count);
      if (lane() == 0) tied[s] = count;
    });
    __syncthreads();
    int all;
    const int before = block_.before(thread < segments_ ? tied[thread] : 0, all);
    if (thread < segments_) tied[thread] = before;
    __syncthreads();
    for_each_segment([&](int s, int begin, int end) {
      if (shared_.row.segment_key[s] < cut.key) return;
      int rank = tied[s];
      for (int tile = begin; tile < end; tile += kTile) {
        int own_ties = 0;
        for_each_key(tile, min(end, tile + kTile),
                     [&](int, uint32_t key) { own_ties += key == cut.key ? 1 : 0; });
        const int through = RowBlock::warp_scan(own_ties, lane());
        int own_rank = rank + through - own_ties;
        for_each_key(tile, min(end, tile + kTile), [&](int id, uint32_t key) {
          if (key < cut.key || (key == cut.key && own_rank++ >= ties)) return;
          const int at = atomicAdd(&shared_.found, 1);
          if (at >= kMostLogprobs) return;
          shared_.best_key[at] = key;
          shared_.best_token[at] = id;
        });
        rank += __shfl_sync(kFullWarp, through, 31);
      }
    });
    __syncthreads();
    return min(shared_.found, kMostLogprobs);
  }

  /// Calls f(token, rank, value) for each gathered token; ranks count from 1.
  template <class F>
  __device__ void for_each_best(int count, F&& f) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= count) return;
    const uint32_t key = shared_.best_key[thread];
    const int token = shared_.best_token[thread];
    int rank = 1;
    for (int i = 0; i < count; ++i) {
      const uint32_t other = shared_.best_key[i];
      rank += other > key || (other == key && shared_.best_token[i] < token) ? 1 : 0;
    }
    f(token, rank, row_[token]);
  }

  __device__ float value(int token) const { return row_[token]; }

 private:
  __device__ static int lane() { return static_cast<int>(threadIdx.x) & 31; }

  template <class F>
  __device__ void for_each_segment(F&& f) {
    for (int s = static_cast<int>(threadIdx.x) >> 5; s < segments_; s += kRowThreads / 32)
      f(s, s * segment_tokens_, min(row_.vocab(), (s + 1) * segment_tokens_));
  }

  /// f(token, key) for the lane's tokens of [begin, end).
  template <class F>
  __device__ void for_each_key(int begin, int end, F&& f) {
    for (int tile = begin; tile < end; tile += kTile) {
      float x[kLane];
      row_.read(tile + lane() * kLane, x);
#pragma unroll
      for (int j = 0; j < kLane; ++j) f(tile + lane() * kLane + j, key_of(x[j]));
    }
  }

  RowReader<T> row_;
  LogprobShared& shared_;
  RowBlock& block_;
  int segments_;
  int segment_tokens_;
};

__device__ LogprobEntry entry_of(int token, float value, float max, double log_total, int rank) {
  const double above = value == max ? 0.0 : static_cast<double>(value) - static_cast<double>(max);
  return {.token = token, .logprob = static_cast<float>(above - log_total), .rank = rank};
}

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    logprobs_kernel(const __grid_constant__ LogprobProblem p) {
  __shared__ LogprobShared shared;
  RowBlock block(shared.row.scratch);
  const LogprobRequest request = p.requests[blockIdx.x];
  const int thread = static_cast<int>(threadIdx.x);
  LogprobEntry* entries = p.entries + request.begin;
  for (int i = thread; i <= request.num; i += kRowThreads) entries[i].token = -1;
  const int token = request.target >= 0 ? request.target : p.tokens[request.row];
  if (thread == 0) p.outcomes[blockIdx.x] = kPicked;
  if (token < 0) return;

  RowOfLogprobs<T> row(p, request, shared, block);
  const uint32_t best = row.find_max();
  if (best == kNaNKey || best <= kLowestKey) {
    if (thread == 0) p.outcomes[blockIdx.x] = best == kNaNKey ? kNaNInLogits : kNothingLeft;
    return;
  }
  const float max = value_of(best);
  double total;
  int rank;
  row.weigh(max, token, total, rank);
  const double log_total = log(total);
  if (thread == 0) entries[0] = entry_of(token, row.value(token), max, log_total, rank);
  if (request.num == 0) return;
  const int found = row.gather(request.num, best);
  row.for_each_best(found, [&](int id, int place, float value) {
    if (place <= request.num) entries[place] = entry_of(id, value, max, log_total, place);
  });
}

}  // namespace

Status row_logprobs(const Rows& rows, const LogprobRequest* requests, int32_t count,
                    const int32_t* tokens, LogprobEntry* entries, int32_t* outcomes,
                    cudaStream_t stream) {
  if (count == 0) return {};
  const LogprobProblem p{.rows = rows,
                         .requests = requests,
                         .tokens = tokens,
                         .entries = entries,
                         .outcomes = outcomes,
                         .segments = static_cast<int32_t>(rows.segments()),
                         .segment_tokens = static_cast<int32_t>(rows.segment_tokens())};
  return dispatch_float(rows.dtype, "logprobs", [&]<class E>() -> Status {
    logprobs_kernel<device_t<E>><<<static_cast<unsigned>(count), kRowThreads, 0, stream>>>(p);
    return launch_status("logprobs");
  });
}

}  // namespace mmcore::cuda
