#include "ops/attention/gpu_plan.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "ops/attention/entry_check.h"
#include "ops/attention/prefill_cut.h"
#include "ops/attention/prefill_order.h"
#include "ops/cuda_backend.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

constexpr const char* kOp = "plan_paged_attention";
constexpr int64_t kHeaderWords = 16;
constexpr int64_t kMaxLine = std::numeric_limits<int32_t>::max();

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t aligned(int64_t words) { return divide_up(words, 4) * 4; }
int32_t to_int32(int64_t n) { return static_cast<int32_t>(n); }

template <class T>
constexpr int64_t kWords = static_cast<int64_t>(sizeof(T) / sizeof(int32_t));

/// Lengths as they are on the host.
struct Lengths {
  const int32_t* query_start;
  const int32_t* seq_lens;
  int32_t sequences;

  int32_t queries(int32_t n) const { return query_start[n + 1] - query_start[n]; }
};

void check_lengths(ShapeCheck& check, const Lengths& lengths, const AttentionPlanShape& shape) {
  if (lengths.sequences > shape.sequences) {
    check.fail("seq_lens has " + std::to_string(lengths.sequences) +
               " entries, more than the shape's " + std::to_string(shape.sequences) + " sequences");
  }
  if (!check.ok()) return;
  check_starts(check, "query_start", lengths.query_start, lengths.sequences, shape.tokens);
  for (int32_t n = 0; n < lengths.sequences && check.ok(); ++n) {
    const int32_t queries = lengths.queries(n);
    if (lengths.seq_lens[n] < queries) {
      check.fail("seq_lens[" + std::to_string(n) + "] is " + std::to_string(lengths.seq_lens[n]) +
                 ", expected at least the " + std::to_string(queries) + " queries of the sequence");
    } else if (shape.max_query_len > 0 && queries > shape.max_query_len) {
      check.fail("sequence " + std::to_string(n) + " has " + std::to_string(queries) +
                 " queries, more than the shape's max_query_len of " +
                 std::to_string(shape.max_query_len));
    }
  }
}

/// What lies side by side on the line, and how workers share it.
struct Line {
  std::vector<DecodeSequence> sequences;
  int64_t end = 0;  // behind the last unit
  int64_t chunk = kMinChunk;
  int32_t team = 1;
};

/// Gives each unit a team where there are workers enough and none of them has much more to do than
/// its share of a line would be.
void form_teams(Line& line, int32_t units, int32_t workers) {
  const int64_t all = static_cast<int64_t>(line.sequences.size()) * units;
  int32_t team = kDecodeCluster;
  while (team > 1 && all * team > workers) team /= 2;
  if (all == 0 || team == 1 || workers % kDecodeCluster != 0) return;
  int32_t longest = 0;
  for (const DecodeSequence& s : line.sequences) longest = std::max(longest, s.cells);
  const int64_t chunk = std::max<int64_t>(2, divide_up(longest, team));
  if (chunk > kTeamChunk && 4 * chunk > 5 * line.chunk) return;
  line.team = team;
  line.chunk = chunk;
  const int64_t pitch = team * chunk;
  int64_t at = -kUnitOverhead;
  for (DecodeSequence& s : line.sequences) {
    s.line = to_int32(at);
    s.pitch = to_int32(pitch);
    at += units * pitch;
  }
  line.end = at + kUnitOverhead;
}

/// Units of a sequence that share a worker with `chunk` cells, each in an equal share of them.
int32_t together(int32_t cells, int64_t chunk) {
  int32_t count = 1;
  while (count < kMostTogether && chunk % (2 * count) == 0 &&
         chunk / (2 * count) >= cells + kUnitOverhead) {
    count *= 2;
  }
  return count;
}

/// What a unit takes of the line where none begins or ends within a worker's share of another one.
int64_t aligned_pitch(int32_t cells, int64_t chunk) {
  return cells > chunk ? divide_up(cells, chunk) * chunk : chunk / together(cells, chunk);
}

int64_t aligned_end(const Line& line, int32_t units, int64_t chunk) {
  int64_t end = 0;
  for (const DecodeSequence& s : line.sequences) end += units * aligned_pitch(s.cells, chunk);
  return end;
}

/// Lets units begin where workers do, where workers do not get much more than an equal share by
/// that. Then a worker has parts of one unit or some whole ones: what it would pay for a second
/// unit and for a second merge is worth more than an even balance, for memory is busy anyway.
void align_units(Line& line, int32_t units, int32_t workers) {
  const int64_t all = static_cast<int64_t>(line.sequences.size()) * units;
  if (all == 0 || all > workers) return;
  int64_t chunk = line.chunk;
  while (aligned_end(line, units, chunk) > workers * chunk) {
    chunk += std::max<int64_t>(1, chunk / 32);
    if (2 * chunk > 3 * line.chunk || workers * chunk > kMaxLine) return;
  }
  // Longer ones first: pitches divide those before them, so that all begin on a multiple of theirs.
  std::stable_sort(
      line.sequences.begin(), line.sequences.end(),
      [](const DecodeSequence& a, const DecodeSequence& b) { return a.cells > b.cells; });
  line.chunk = chunk;
  int64_t at = -kUnitOverhead;
  for (DecodeSequence& s : line.sequences) {
    const int64_t pitch = aligned_pitch(s.cells, chunk);
    s.line = to_int32(at);
    s.pitch = to_int32(pitch);
    at += units * pitch;
  }
  line.end = at + kUnitOverhead;
}

/// An end beyond kMaxLine: too many keys.
Line lay_out(const Lengths& lengths, const AttentionPlanShape& shape, int32_t workers) {
  const int32_t group = shape.heads / shape.kv_heads;
  const int32_t units = units_of(shape.kv_heads, group);
  Line line;
  for (int32_t n = 0; n < lengths.sequences; ++n) {
    const int32_t queries = lengths.queries(n);
    if (queries == 0 || !is_decode(queries, group)) continue;
    const int32_t keys = lengths.seq_lens[n];
    const int32_t position = keys - queries;
    const int32_t key_begin = shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
    const int64_t cells = divide_up(keys, kCellKeys) - key_begin / kCellKeys;
    line.sequences.push_back({.sequence = n,
                              .first_row = lengths.query_start[n],
                              .queries = queries,
                              .keys = keys,
                              .key_begin = key_begin,
                              .cells = to_int32(cells),
                              .line = to_int32(line.end),
                              .pitch = to_int32(cells + kUnitOverhead)});
    line.end += units * (cells + kUnitOverhead);
    if (line.end > kMaxLine) return line;
  }
  line.chunk = std::max<int64_t>(kMinChunk, divide_up(line.end, workers));
  form_teams(line, units, workers);
  if (line.team > 1) return line;
  if (may_have_teams(static_cast<int64_t>(line.sequences.size()) * units, workers)) {
    workers -= kDecodeCluster;
    line.chunk = std::max<int64_t>(kMinChunk, divide_up(line.end, workers));
  }
  align_units(line, units, workers);
  return line;
}

void divide(const Line& line, int32_t workers, bool settled, int32_t* out) {
  size_t index = 0;
  for (int32_t w = 0; w < workers; ++w) {
    DecodeWorker worker{};
    worker.chunk = to_int32(line.chunk);
    worker.team = line.team;
    const int64_t begin = std::min(line.end, w * line.chunk);
    if (begin < line.end) {
      while (index + 1 < line.sequences.size() && line.sequences[index + 1].line <= begin) ++index;
      const DecodeSequence& first = line.sequences[index];
      worker.begin = to_int32(begin);
      worker.end = to_int32(std::min(line.end, begin + line.chunk));
      worker.sequences = to_int32(static_cast<int64_t>(line.sequences.size()));
      worker.index = to_int32(static_cast<int64_t>(index));
      worker.unit = (worker.begin - first.line) / first.pitch;
      worker.settled = settled ? 1 : 0;
      worker.first = first;
    }
    std::memcpy(out + w * kWords<DecodeWorker>, &worker, sizeof(worker));
  }
}

/// The keys that a tile reads: [begin, end), never empty.
struct TileKeys {
  int64_t begin;
  int64_t end;
};

TileKeys tile_keys(const Lengths& lengths, const AttentionPlanShape& shape, int32_t n,
                   int32_t row) {
  const int32_t queries = lengths.queries(n);
  const int64_t position = lengths.seq_lens[n] - queries + int64_t{row};
  const int64_t last = std::min(queries - row, kPrefillTileRows) - 1;
  return {.begin = shape.window > 0 ? std::max<int64_t>(0, position - shape.window + 1) : 0,
          .end = shape.causal ? position + last + 1 : lengths.seq_lens[n]};
}

std::vector<PrefillTile> prefill_tiles(const Lengths& lengths, const AttentionPlanShape& shape) {
  const int32_t group = shape.heads / shape.kv_heads;
  std::vector<PrefillTile> tiles;
  for (int32_t n = 0; n < lengths.sequences; ++n) {
    const int32_t queries = lengths.queries(n);
    if (queries == 0 || is_decode(queries, group)) continue;
    for (int32_t row = 0; row < queries; row += kPrefillTileRows) {
      const TileKeys keys = tile_keys(lengths, shape, n, row);
      tiles.push_back({.keys = keys.end - keys.begin, .sequence = n, .row = row});
    }
  }
  constexpr int64_t kBytes = 2;  // of an element, most often
  order_prefill_tiles(tiles, 2 * kBytes * shape.kv_heads * shape.head_dim);
  return tiles;
}

void write_prefills(const Lengths& lengths, const AttentionPlanShape& shape, int32_t* words) {
  const std::vector<PrefillTile> tiles = prefill_tiles(lengths, shape);
  const GpuPlanLayout layout = gpu_plan_layout(shape);
  words[kTileCountAt] = to_int32(static_cast<int64_t>(tiles.size()));
  const int32_t step_keys = prefill_step_keys(shape.head_dim);
  std::vector<int32_t> steps;
  int32_t* out = words + layout.tiles_at;
  for (const PrefillTile& tile : tiles) {
    *out++ = tile.sequence;
    *out++ = tile.row;
    const TileKeys keys = tile_keys(lengths, shape, tile.sequence, tile.row);
    steps.push_back(to_int32(divide_up(keys.end, step_keys) - keys.begin / step_keys));
  }
  if (tiles.empty() || shape.head_dim > kMostCutDim) return;
  const PrefillCut cut = cut_prefill(steps, shape.heads, shape.multiprocessors);
  words[kCutAt] = cut.chunk;
  words[kCutAt + 1] = cut.steps;
  if (cut.chunk > 0) {
    std::memcpy(words + layout.cut_workers_at, cut.workers.data(),
                cut.workers.size() * sizeof(PrefillWorker));
  }
}

}  // namespace

bool is_valid(const AttentionPlanShape& s) {
  return s.sequences >= 0 && s.tokens >= 0 && s.max_query_len >= 0 && s.kv_heads > 0 &&
         s.heads > 0 && s.heads % s.kv_heads == 0 && s.window >= 0 && s.multiprocessors > 0 &&
         s.sequences <= kMaxLine && s.tokens <= kMaxLine &&
         std::find(std::begin(kHeadDims), std::end(kHeadDims), s.head_dim) != std::end(kHeadDims);
}

int32_t max_decode_rows(const AttentionPlanShape& shape) {
  const int64_t group = shape.heads / shape.kv_heads;
  const bool few = decode_only(shape.max_query_len, to_int32(group)) &&
                   shape.max_query_len * group <= kDecodeRows / 2;
  return few ? kDecodeRows / 2 : kDecodeRows;
}

GpuPlanLayout gpu_plan_layout(const AttentionPlanShape& shape) {
  const int32_t group = shape.heads / shape.kv_heads;
  GpuPlanLayout layout{};
  const int32_t clusters = shape.multiprocessors / kDecodeCluster;
  layout.workers = clusters > 0 ? clusters * kDecodeCluster : shape.multiprocessors;
  if (!decode_only(shape.max_query_len, group)) {
    const int64_t fewest = std::max(2, kDecodeRows / group + 1);  // queries of a prefill
    layout.max_tiles = to_int32(shape.tokens / kPrefillTileRows +
                                std::min(shape.sequences, shape.tokens / fewest));
  }
  layout.workers_at = kHeaderWords;
  layout.counters_at = layout.workers_at + layout.workers * kWords<DecodeWorker>;
  layout.sequences_at = layout.counters_at + aligned(layout.workers);
  layout.tiles_at = layout.sequences_at + shape.sequences * kWords<DecodeSequence>;
  // None where no prefill fits.
  const int64_t cut_workers = layout.max_tiles > 0 ? shape.multiprocessors : 0;
  layout.cut_workers_at = aligned(layout.tiles_at + 2 * int64_t{layout.max_tiles});
  layout.cut_counters_at = layout.cut_workers_at + cut_workers * kWords<PrefillWorker>;
  layout.words = aligned(layout.cut_counters_at + 2 * cut_workers);
  return layout;
}

int64_t attention_plan_words(const AttentionPlanShape& shape) {
  return is_valid(shape) ? gpu_plan_layout(shape).words : -1;
}

int64_t decode_partial_bytes(const AttentionPlanShape& shape) {
  // Of each slot: a row's sums of weighted values, its maximum and its sum of weights.
  return 2 * int64_t{shape.multiprocessors} * max_decode_rows(shape) * (shape.head_dim + 2) *
         static_cast<int64_t>(sizeof(float));
}

int64_t paged_attention_workspace_bytes(const AttentionPlanShape& shape) {
  if (!is_valid(shape)) return -1;
  const bool prefills = !decode_only(shape.max_query_len, shape.heads / shape.kv_heads);
  return decode_partial_bytes(shape) +
         (prefills ? prefill_partial_bytes(shape.head_dim, shape.multiprocessors) : 0);
}

Status plan_paged_attention(const TensorView& query_start, const TensorView& seq_lens,
                            const AttentionPlanShape& shape, const TensorView& plan, bool settled) {
  ShapeCheck check(kOp);
  const auto N = check.dim("N"), W = check.dim("W");
  check.tensor("query_start", query_start, {N + 1}).dtype(DType::kInt32);
  check.tensor("seq_lens", seq_lens, {N}).dtype(DType::kInt32);
  check.tensor("plan", plan, {W}).dtype(DType::kInt32).writable();
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) {
    check.fail("the tensors are on a GPU; a plan is made on the CPU, from copies of the lengths");
  } else if (!is_valid(shape)) {
    check.fail("no kernel takes the shape: " + std::to_string(shape.heads) + " heads, " +
               std::to_string(shape.kv_heads) + " key/value heads of " +
               std::to_string(shape.head_dim) + ", window " + std::to_string(shape.window) + ", " +
               std::to_string(shape.multiprocessors) + " multiprocessors");
  } else if (check.size(W) < gpu_plan_layout(shape).words) {
    check.fail("plan has " + std::to_string(check.size(W)) + " words, expected the " +
               std::to_string(gpu_plan_layout(shape).words) + " of attention_plan_words");
  }
  MMCORE_RETURN_IF_ERROR(check.status());
  const Lengths lengths{.query_start = query_start.ptr<int32_t>(),
                        .seq_lens = seq_lens.ptr<int32_t>(),
                        .sequences = to_int32(check.size(N))};
  check_lengths(check, lengths, shape);
  MMCORE_RETURN_IF_ERROR(check.status());

  const GpuPlanLayout layout = gpu_plan_layout(shape);
  auto* words = plan.ptr<int32_t>();
  const Line line = lay_out(lengths, shape, layout.workers);
  if (line.end > kMaxLine) {
    check.fail("the sequences have too many keys for one call; expected less than " +
               std::to_string(kMaxLine * kCellKeys) + " over all key/value heads");
    return check.status();
  }
  std::fill_n(words, layout.words, 0);
  divide(line, layout.workers, settled, words + layout.workers_at);
  if (!line.sequences.empty()) {
    std::memcpy(words + layout.sequences_at, line.sequences.data(),
                line.sequences.size() * sizeof(DecodeSequence));
  }
  write_prefills(lengths, shape, words);
  return {};
}

}  // namespace mmcore::ops
