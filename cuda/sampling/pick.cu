// Picks tokens: one kernel summarises segments, many to a row; a block a row does the rest, or a
// cluster of blocks where rows are few and long.
//
// Greedy rows end after the summaries. A row without filters draws from the segments' sums and
// reads one segment again. Otherwise top-k and top-p each find their cut (row_cut.cuh), and one
// more pass, over segments that reach the cuts, sums what is kept for the draw.
//
// [1, 151936] bf16 with top-p: some ten passes of 300 KB. One multiprocessor takes 10 us for each,
// eight of them 2 us, of which half is the exchange.
//
// [1, 32064] bf16 greedy on an H100: 64 KB; expected two launches of about 2 us.
#include <algorithm>

#include "host/device.h"
#include "ops/philox.h"
#include "sampling/row_cut.cuh"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

constexpr float kGreedyBelow = 1e-5f;

/// One row's parameters.
struct Params {
  float temperature, top_p, min_p;
  int32_t top_k;

  __device__ Params(const SampleColumns& c, int64_t row)
      : temperature(c.temperature[row]),
        top_p(c.top_p[row]),
        min_p(c.min_p[row]),
        top_k(c.top_k[row]) {}

  /// NaN fails every comparison.
  __device__ bool valid() const {
    return temperature >= 0.0f && temperature <= 3.402823466e38f && top_p > 0.0f && top_p <= 1.0f &&
           min_p >= 0.0f && min_p <= 1.0f && (top_k == -1 || top_k >= 1);
  }
  __device__ bool greedy() const { return temperature < kGreedyBelow; }
  __device__ bool cuts_by_rank(int vocab) const { return top_k >= 1 && top_k < vocab; }
};

struct ScanProblem {
  Rows rows;
  SampleColumns columns;
  uint4* segments;
  int32_t per_row;
  int32_t segment_tokens;
};

/// A warp a segment, in turns.
template <class T>
__global__ void __launch_bounds__(256) scan_kernel(const __grid_constant__ ScanProblem p) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int64_t all = p.rows.count * p.per_row;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; i < all;
       i += step) {
    const int64_t r = i / p.per_row;
    const int begin = static_cast<int>(i - r * p.per_row) * p.segment_tokens;
    const RowReader<T> row(p.rows, r);
    const int end = min(row.vocab(), begin + p.segment_tokens);
    SegmentInfo info = segment_max(row, begin, end);
    const Params params(p.columns, r);
    if (!params.greedy() && !params.cuts_by_rank(row.vocab()) && info.key != kNaNKey &&
        info.key > kLowestKey) {
      const float max = value_of(info.key), inverse = 1.0f / params.temperature;
      float sum = 0.0f;
      for (int tile = begin; tile < end; tile += kTile) {
        float x[kLane];
        row.read(tile + lane * kLane, x);
#pragma unroll
        for (int j = 0; j < kLane; ++j) sum += weight_of(x[j], max, inverse);
      }
      info.sum = warp_sum(sum);
    }
    if (lane == 0) {
      p.segments[i] =
          make_uint4(info.key, static_cast<uint32_t>(info.arg), __float_as_uint(info.sum), 0u);
    }
  }
}

struct PickProblem {
  Rows rows;
  SampleColumns columns;
  const uint4* segments;
  const int32_t* raw_nans;
  int32_t* tokens;
  int32_t* outcomes;
  int32_t per_row;
  int32_t segment_tokens;
};

/// Which tokens the draw may take, and of those at the cut how many in order of ids.
struct Kept {
  float max, inverse_temperature;
  uint32_t above_value;   // value keys above it ...
  uint32_t above_weight;  // ... whose weight's bits are above this one are kept
  bool ties_by_weight;    // which of the two keys the tied tokens have in common
  int32_t ties;
  float tie_weight;
  float min_p;

  /// The token's weight, or 0; `tied` where it counts among the ties instead.
  __device__ float weight(float x, bool& tied) const {
    const uint32_t value = key_of(x);
    tied = false;
    if (value < above_value) return 0.0f;
    const float w = weight_of(x, max, inverse_temperature);
    const uint32_t bits = __float_as_uint(w);
    tied = ties > 0 && (ties_by_weight ? bits == above_weight : value == above_value);
    return !tied && value > above_value && bits > above_weight && w >= min_p ? w : 0.0f;
  }
};

/// The first token whose cumulative weight exceeds `target`, or the last one that may be drawn.
/// `before` and `ties_before` are what lies in front of the segment. For one warp.
template <class T>
__device__ int draw_in_segment(const RowReader<T>& row, const Kept& kept, int begin, int end,
                               double before, int ties_before, double target) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  int last = -1;
  for (int tile = begin; tile < end; tile += kTile) {
    float x[kLane], w[kLane];
    row.read(tile + lane * kLane, x);
    bool tied[kLane];
    int ties = 0;
#pragma unroll
    for (int j = 0; j < kLane; ++j) {
      w[j] = kept.weight(x[j], tied[j]);
      ties += tied[j] ? 1 : 0;
    }
    const int ties_through = RowBlock::warp_scan(ties, lane);
    int rank = ties_before + ties_through - ties;
    double sum = 0;
#pragma unroll
    for (int j = 0; j < kLane; ++j) {
      if (tied[j] && rank++ < kept.ties) w[j] = kept.tie_weight;
      sum += w[j];
    }
    const double through = RowBlock::warp_scan(sum, lane);
    double reached = before + __shfl_up_sync(kFullWarp, through, 1);
    if (lane == 0) reached = before;
    int first = 0x7fffffff, own_last = -1;
#pragma unroll
    for (int j = 0; j < kLane; ++j) {
      if (w[j] == 0.0f) continue;
      reached += w[j];
      own_last = tile + lane * kLane + j;
      if (reached > target) first = min(first, own_last);
    }
    first = __reduce_min_sync(kFullWarp, first);
    if (first != 0x7fffffff) return first;
    last = max(last, __reduce_max_sync(kFullWarp, own_last));
    before += __shfl_sync(kFullWarp, through, 31);
    ties_before += __shfl_sync(kFullWarp, ties_through, 31);
  }
  return last;
}

/// Ties at the cut that a mass asks for: as many as bring `above` to it.
__device__ int ties_for(double mass, double above, double weight) {
  const double wanted = ceil((mass - above) / weight);
  return wanted < 1.0 ? 1 : wanted > 2e9 ? 2'000'000'000 : static_cast<int>(wanted);
}

/// Everything between the summaries and the draw.
template <class T, class Team>
class RowPicker {
 public:
  __device__ RowPicker(const PickProblem& p, RowShared& shared, const Team& team, int64_t index)
      : row_(p.rows, index),
        shared_(shared),
        team_(team),
        block_(team.block()),
        params_(p.columns, index),
        segments_(p.per_row),
        segment_tokens_(p.segment_tokens) {}

  /// The token, in the first warp of the team's first block.
  __device__ int pick(const SegmentInfo& own, uint32_t best, float u) {
    const int thread = static_cast<int>(threadIdx.x);
    Kept kept{.max = value_of(best),
              .inverse_temperature = 1.0f / params_.temperature,
              .above_value = kLowestKey,
              .above_weight = 0,
              .ties_by_weight = false,
              .ties = 0,
              .tie_weight = 0.0f,
              .min_p = params_.min_p};
    float weight = 0.0f;
    if (thread < segments_) {
      weight = weight_of(value_of(own.key), kept.max, kept.inverse_temperature);
      shared_.segment_key[thread] = own.key;
      shared_.segment_weight[thread] = weight;
    }
    __syncthreads();
    const bool by_rank = params_.cuts_by_rank(row_.vocab());
    const double own_sum = double{own.sum} * weight;  // of weights, where it was asked for
    if (!by_rank && params_.top_p == 1.0f && params_.min_p == 0.0f)
      return team_.rank() == 0 ? draw(kept, own_sum, 0, u) : -1;
    if (by_rank) cut_by_rank(kept, own.key, best);
    if (params_.top_p < 1.0f) cut_by_mass(kept, by_rank, own_sum);
    if (kept.ties > 0 && kept.tie_weight < params_.min_p) kept.ties = 0;
    return sum_and_draw(kept, u);
  }

 private:
  __device__ void cut_by_rank(Kept& kept, uint32_t own_key, uint32_t best) {
    const uint32_t at_least = kth_segment_key(own_key, params_.top_k, segments_);
    const CutKeys<T, false> keys{row_, kept.max, kept.inverse_temperature, 0};
    const uint32_t lo = at_least > kLowestKey ? at_least : kLowestKey + 1;
    const Cut cut = find_cut(keys, shared_, team_, segments_, segment_tokens_, lo, best + 1,
                             static_cast<double>(params_.top_k), Group{});
    kept.above_value = cut.key;
    kept.ties = static_cast<int>(static_cast<double>(params_.top_k) - cut.above);
    kept.tie_weight = weight_of(value_of(cut.key), kept.max, kept.inverse_temperature);
  }

  __device__ void cut_by_mass(Kept& kept, bool by_rank, double own_sum) {
    const CutKeys<T, true> keys{row_, kept.max, kept.inverse_temperature, kept.above_value};
    const Group group{by_rank ? __float_as_uint(kept.tie_weight) : 0u, 0.0};
    Group ties = group;
    uint32_t lo;
    double total;
    if (by_rank) {
      // top-k left this many ties, or all there are if they are fewer; only a count can tell.
      const int there = count_ties(kept);
      kept.ties = min(kept.ties, there);
      ties.amount = static_cast<double>(kept.ties) * kept.tie_weight;
      const PassResult all =
          cut_pass(keys, shared_, team_, segments_, segment_tokens_, 1u, 1u, /*turn=*/1);
      total = all.from[kMids] + ties.amount;
      lo = max(1u, __float_as_uint(kept.tie_weight));
    } else {
      total = block_.sum(own_sum);
    }
    const double mass = double{params_.top_p} * total;
    if (!by_rank) {
      // Tokens this light are at most half of what may be cut, even if all were.
      const auto light = static_cast<float>(0.5 * (total - mass) / row_.vocab());
      lo = max(1u, __float_as_uint(light));
    }
    const Cut cut =
        find_cut(keys, shared_, team_, segments_, segment_tokens_, lo, kOneBits + 1, mass, ties);
    kept.above_weight = cut.key;
    kept.ties_by_weight = true;
    kept.tie_weight = __uint_as_float(cut.key);
    kept.ties = ties_for(mass, cut.above, kept.tie_weight);
  }

  /// Tokens at the value of the cut.
  __device__ int count_ties(const Kept& kept) {
    int ties = 0;
    for_each_tile(
        row_, team_, segments_, segment_tokens_,
        [&](int s) { return shared_.segment_key[s] >= kept.above_value; },
        [&](int, int, const float(&x)[kLane]) {
#pragma unroll
          for (int j = 0; j < kLane; ++j) ties += key_of(x[j]) == kept.above_value ? 1 : 0;
        });
    ties = block_.sum(ties);
    if constexpr (Team::kBlocks == 1) return ties;
    if (threadIdx.x == 0) shared_.ties = ties;
    team_.sync();
    int all = 0;
#pragma unroll
    for (int rank = 0; rank < Team::kBlocks; ++rank) all += *team_.of(rank, &shared_.ties);
    return all;  // the barrier of the next pass is in front of whatever changes it
  }

  /// Sums what is kept by segments, which needs the list's memory, and draws.
  __device__ int sum_and_draw(const Kept& kept, float u) {
    auto* sums = reinterpret_cast<double*>(shared_.list);
    auto* ties = reinterpret_cast<int32_t*>(sums + kMostSegments);
    const int thread = static_cast<int>(threadIdx.x), lane = thread & 31;
    if (thread < segments_) {
      sums[thread] = 0;
      ties[thread] = 0;
    }
    team_.sync();
    const auto reaches = [&](int s) {
      const float largest = shared_.segment_weight[s];
      return shared_.segment_key[s] >= kept.above_value && largest >= kept.min_p &&
             __float_as_uint(largest) >= kept.above_weight;
    };
    for_each_tile(row_, team_, segments_, segment_tokens_, reaches,
                  [&](int s, int, const float(&x)[kLane]) {
                    float tile_sum = 0;
                    int tied = 0;
#pragma unroll
                    for (int j = 0; j < kLane; ++j) {
                      bool is_tied;
                      tile_sum += kept.weight(x[j], is_tied);
                      tied += is_tied ? 1 : 0;
                    }
                    double sum = tile_sum;
#pragma unroll
                    for (int step = 16; step > 0; step >>= 1)
                      sum += __shfl_xor_sync(kFullWarp, sum, step);
                    tied = __reduce_add_sync(kFullWarp, tied);
                    if (lane == 0) {  // the only one that writes to this segment
                      sums[s] += sum;
                      ties[s] += tied;
                    }
                  });
    __syncthreads();
    if constexpr (Team::kBlocks > 1) {  // the first block draws
      const int rank = thread % Team::kWarps / (kRowThreads / 32);
      if (team_.rank() > 0 && rank == team_.rank() && thread < segments_) {
        *team_.of(0, sums + thread) = sums[thread];
        *team_.of(0, ties + thread) = ties[thread];
      }
      team_.sync();
      if (team_.rank() > 0) return -1;
    }
    const int own_ties = thread < segments_ ? ties[thread] : 0;
    int all_ties;
    const int ties_before = block_.before(own_ties, all_ties);
    const int taken = min(max(kept.ties - ties_before, 0), own_ties);
    double sum = thread < segments_ ? sums[thread] : 0.0;
    sum += static_cast<double>(taken) * kept.tie_weight;
    return draw(kept, sum, ties_before, u);
  }

  /// Draws with each thread's segment sum; the result is valid in the first warp.
  __device__ int draw(const Kept& kept, double own_sum, int ties_before, float u) {
    const int thread = static_cast<int>(threadIdx.x);
    double total;
    const double before = block_.before(own_sum, total);
    const double target = double{u} * total;
    const bool some = own_sum > 0.0;
    // The first segment that passes the target; rounding may leave none: then the last with a sum.
    const int first = block_.min(some && before + own_sum > target ? thread : 0x7fffffff);
    const int last = kRowThreads - 1 - block_.min(some ? kRowThreads - 1 - thread : kRowThreads);
    const int segment = first != 0x7fffffff ? first : max(last, 0);
    if (thread == segment) {
      shared_.found_before = before;
      shared_.found_ties_before = ties_before;
    }
    __syncthreads();
    if (thread >= 32) return 0;
    const int begin = segment * segment_tokens_;
    return draw_in_segment(row_, kept, begin, min(row_.vocab(), begin + segment_tokens_),
                           shared_.found_before, shared_.found_ties_before, target);
  }

  RowReader<T> row_;
  RowShared& shared_;
  const Team& team_;
  RowBlock& block_;
  Params params_;
  int segments_;
  int segment_tokens_;
};

template <class T, int kBlocks>
__global__ void __launch_bounds__(kRowThreads) pick_kernel(const __grid_constant__ PickProblem p) {
  __shared__ RowShared shared;
  RowBlock block(shared.scratch);
  const RowTeam<kBlocks> team(block);
  const int64_t index = blockIdx.x / kBlocks;
  const int thread = static_cast<int>(threadIdx.x);
  SegmentInfo own{.key = 0, .arg = 0x7fffffff, .sum = 0.0f, .unused = 0};
  if (thread < p.per_row) {
    const uint4 raw = p.segments[index * p.per_row + thread];
    own = {.key = raw.x,
           .arg = static_cast<int32_t>(raw.y),
           .sum = __uint_as_float(raw.z),
           .unused = 0};
  }
  const uint32_t best = block.max(own.key);
  const Params params(p.columns, index);
  const bool edited = p.rows.edit_slot != nullptr && p.rows.edit_slot[index] >= 0;
  int32_t outcome = kPicked;
  if (!params.valid()) {
    outcome = kBadParameters;
  } else if (edited && p.raw_nans != nullptr && p.raw_nans[index] != 0) {
    outcome = kNaNInLogits;
  } else if (best == kNaNKey) {
    outcome = edited ? kNaNFromEdits : kNaNInLogits;
  } else if (best <= kLowestKey) {
    outcome = kNothingLeft;
  }
  int token = -1;
  if (outcome == kPicked && params.greedy()) {
    token = block.min(own.key == best ? own.arg : 0x7fffffff);
  } else if (outcome == kPicked) {
    const float u = ops::uniform_from(static_cast<uint64_t>(p.columns.seed[index]),
                                      static_cast<uint64_t>(p.columns.counter[index]));
    // A block's shared memory is there for the others once it has begun. All of them come here or
    // none: they have the same row.
    if constexpr (kBlocks > 1) team.sync();
    token = RowPicker<T, RowTeam<kBlocks>>(p, shared, team, index).pick(own, best, u);
  }
  if (thread == 0 && team.rank() == 0) {
    p.tokens[index] = token;
    if (p.outcomes != nullptr) p.outcomes[index] = outcome;
  }
}

}  // namespace

Status scan_segments(const Rows& rows, const SampleColumns& columns, void* segments, Device device,
                     cudaStream_t stream) {
  const auto facts = device_facts(device);
  if (!facts.ok()) return facts.status();
  const ScanProblem p{.rows = rows,
                      .columns = columns,
                      .segments = static_cast<uint4*>(segments),
                      .per_row = static_cast<int32_t>(rows.segments()),
                      .segment_tokens = static_cast<int32_t>(rows.segment_tokens())};
  const int64_t warps = rows.count * rows.segments();
  // Few segments: a block each of them is spread wider.
  const int threads = warps <= 8 * facts.value()->multiprocessors ? 64 : 256;
  const int64_t blocks = std::min<int64_t>((warps * 32 + threads - 1) / threads,
                                           int64_t{8} * facts.value()->multiprocessors);
  return dispatch_float(rows.dtype, "sample", [&]<class E>() -> Status {
    scan_kernel<device_t<E>>
        <<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream>>>(p);
    return launch_status("sample");
  });
}

Status pick_tokens(const Rows& rows, const SampleColumns& columns, const void* segments,
                   const int32_t* raw_nans, int32_t* tokens, int32_t* outcomes, Device device,
                   cudaStream_t stream) {
  const auto facts = device_facts(device);
  if (!facts.ok()) return facts.status();
  const PickProblem p{.rows = rows,
                      .columns = columns,
                      .segments = static_cast<const uint4*>(segments),
                      .raw_nans = raw_nans,
                      .tokens = tokens,
                      .outcomes = outcomes,
                      .per_row = static_cast<int32_t>(rows.segments()),
                      .segment_tokens = static_cast<int32_t>(rows.segment_tokens())};
  // Several blocks a row while there are multiprocessors for them, and tiles for their warps.
  const bool teams = facts.value()->capability >= 90 &&
                     rows.count * kTeamBlocks <= facts.value()->multiprocessors &&
                     rows.segments() >= 8 * kTeamBlocks;
  return dispatch_float(rows.dtype, "sample", [&]<class E>() -> Status {
    using D = device_t<E>;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {kTeamBlocks, 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(rows.count * (teams ? kTeamBlocks : 1)));
    config.blockDim = dim3(kRowThreads);
    config.stream = stream;
    config.attrs = &cluster;
    config.numAttrs = teams ? 1 : 0;
    // An error stays with the runtime, where launch_status finds it.
    static_cast<void>(
        cudaLaunchKernelEx(&config, teams ? pick_kernel<D, kTeamBlocks> : pick_kernel<D, 1>, p));
    return launch_status("sample");
  });
}

}  // namespace mmcore::cuda
