// How a batch of paged attention is divided over a GPU, and how the plan lies in memory.
//
// Decode. A unit is one sequence and one key/value head (one pack of up to 16 of its query rows);
// its keys count in cells of 16. All units lie side by side on a line, sequence by sequence, head
// by head, each with kUnitOverhead cells of overhead before its keys:
//
//     sequence 0, unit 0    | unit 1              | sequence 1, unit 0 ...
//   [o|cell|cell|cell|cell] [o|cell|cell|cell|cell] [o|cell|cell] ...
//   |-- worker 0 --|-- worker 1 --|-- worker 2 --|-- ...            each `chunk` long
//
// A worker is a thread block. It takes an equal stretch of the line whatever the lengths are, so
// that a step takes the same time on all multiprocessors. A unit cut by borders is finished by the
// last of its workers that arrives, from the partial results of all of them in their order.
//
// Aligned lines. No more units than workers: each begins with a worker's stretch and has as many to
// itself as it needs, or shares one with whole units alone, in equal parts of it. Then no worker
// meets the ends of two cut units, which are two merges in a row, and some none; workers may get
// half as much again as an equal share for that, since what they read comes as fast in any case.
//
// Teams. Few units of about the same length: each has `team` workers in a row to itself, 2, 4 or 8
// that lie in one cluster of thread blocks and merge what they have there, without global memory.
// Units are then farther apart on the line, their keys begin with a worker's stretch:
//
//     sequence 0, unit 0    | unit 1
//    [cell|cell|cell|cell|..][cell|cell|cell|cell|..] ...      a pitch of team * chunk each
//    |- worker 0 -|- worker 1 -|- worker 2 -|- ...
//
// Prefill. Tiles of kPrefillTileRows query rows, in the order of prefill_order.h; few of them may
// be cut between workers, as prefill_cut.h says.
//
// constexpr functions are called by kernels, too: what a worker does is said here and once.
#pragma once

#include <cstdint>

#include "mmcore/ops.h"

namespace mmcore::ops {

/// Query rows of one head in a prefill tile.
inline constexpr int kPrefillTileRows = 128;
/// Query rows (tokens times heads that share a key/value head) in a decode unit, at most.
inline constexpr int kDecodeRows = 16;
/// Keys in a cell: what a warp works on at a time.
inline constexpr int kCellKeys = 16;
/// What a unit costs besides its keys, in cells.
inline constexpr int kUnitOverhead = 1;
/// Cells that are worth a worker of their own.
inline constexpr int kMinChunk = 8;
/// Thread blocks of a cluster: the largest team, and what the number of workers is a multiple of.
inline constexpr int kDecodeCluster = 8;
/// Cells that a worker of a team may have whatever its share of the whole would be.
inline constexpr int kTeamChunk = 16;

/// Whole units that a worker has in an aligned line, at most.
inline constexpr int kMostTogether = 4;

static_assert(kMinChunk > kUnitOverhead, "a worker's first unit must have cells in it");

/// A sequence in decode. Words, because plans are copied as int32.
struct alignas(16) DecodeSequence {
  int32_t sequence;
  int32_t first_row;  // of q and out
  int32_t queries;
  int32_t keys;
  int32_t key_begin;  // the first key that any of its queries sees
  int32_t cells;      // from key_begin / kCellKeys on
  int32_t line;       // where its first unit begins
  int32_t pitch;      // from one of its units to the next
};

/// What a worker starts with, all in one place: nothing else must be read before the first keys.
struct alignas(16) DecodeWorker {
  int32_t begin;  // its stretch of the line; empty: idle
  int32_t end;
  int32_t chunk;
  int32_t sequences;  // in decode
  int32_t index;      // of `first` among the sequences in decode
  int32_t unit;       // of `first`
  int32_t settled;    // 1: as plan_paged_attention's argument says
  int32_t team;       // workers of each unit; 1: no teams. The same in all workers
  DecodeSequence first;
};

/// A worker's part of a unit.
struct DecodePart {
  int32_t cell_begin;  // keys [cell_begin, cell_end) * kCellKeys
  int32_t cell_end;
  int32_t first_worker;
  int32_t parts;  // 1: the worker has the whole unit
};

/// Unit `unit` of `s` as far as it lies on [worker.begin, worker.end). Empty where cell_begin >=
/// cell_end.
constexpr DecodePart decode_part(const DecodeWorker& worker, const DecodeSequence& s,
                                 int32_t unit) {
  const int32_t keys_begin = s.line + unit * s.pitch + kUnitOverhead;
  const int32_t keys_end = keys_begin + s.cells;
  const int32_t from = worker.begin > keys_begin ? worker.begin : keys_begin;
  const int32_t to = worker.end < keys_end ? worker.end : keys_end;
  const int32_t cell = s.key_begin / kCellKeys - keys_begin;
  const int32_t first = keys_begin / worker.chunk;
  return {.cell_begin = from + cell,
          .cell_end = to + cell,
          .first_worker = first,
          .parts = (keys_end - 1) / worker.chunk - first + 1};
}

/// The worker's place in the partial results: a worker cuts at most two units, one that has begun
/// before it and one that goes on behind it.
constexpr int32_t partial_slot(int32_t worker, int32_t first_worker) {
  return 2 * worker + (worker == first_worker ? 1 : 0);
}

/// Where everything lies in a plan, in words.
struct GpuPlanLayout {
  int32_t workers;
  int32_t max_tiles;
  int64_t workers_at;    // DecodeWorker [workers]
  int64_t counters_at;   // int32 [workers]: parts that have arrived, by first worker; 0 at rest
  int64_t sequences_at;  // DecodeSequence [sequences]
  int64_t tiles_at;      // int32 [max_tiles, 2]: sequence, first query row within it
  // PrefillWorker [multiprocessors] where the tiles are cut, and int32 [multiprocessors, 2]: parts
  // that have arrived of each half of an item's rows, by first worker; 0 at rest.
  int64_t cut_workers_at;
  int64_t cut_counters_at;
  int64_t words;
};

/// Word of the number of prefill tiles.
inline constexpr int64_t kTileCountAt = 0;
/// Words of a cut's chunk, 0 where tiles are not cut, and of its number of steps.
inline constexpr int64_t kCutAt = 1;

/// Packs of rows that a key/value head's query rows make.
constexpr int32_t packs_of(int32_t group) { return (group + kDecodeRows - 1) / kDecodeRows; }

/// Units of each sequence in decode.
constexpr int32_t units_of(int32_t kv_heads, int32_t group) { return kv_heads * packs_of(group); }

constexpr bool is_decode(int64_t queries, int32_t group) {
  return queries == 1 || queries * group <= kDecodeRows;
}

/// Whether so few units may have teams: then blocks are launched in clusters. 16 clusters of 8 do
/// not find 128 multiprocessors in the groups that a GPU has them in, so that some would share
/// theirs and keep the next kernel from beginning early: without teams the last cluster has no
/// work.
constexpr bool may_have_teams(int64_t all_units, int32_t workers) {
  return workers % kDecodeCluster == 0 && workers > kDecodeCluster && 2 * all_units <= workers;
}

/// No sequence of this shape can be a prefill.
constexpr bool decode_only(int64_t max_query_len, int32_t group) {
  return max_query_len > 0 && is_decode(max_query_len, group);
}

/// Rows of a unit, at most: 8 or 16.
int32_t max_decode_rows(const AttentionPlanShape& shape);

/// Of the workspace: partial results of decode, and behind them those of cut prefills.
int64_t decode_partial_bytes(const AttentionPlanShape& shape);

/// False for what is no shape: a count below 0, heads that do not divide, an unknown head dim.
bool is_valid(const AttentionPlanShape& shape);

GpuPlanLayout gpu_plan_layout(const AttentionPlanShape& shape);

}  // namespace mmcore::ops
