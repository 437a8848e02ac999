// In which order a GPU works through the tiles of prefills.
//
// Blocks take tiles from a list round by round, to and fro, so that the list should change slowly
// in how long tiles take. All with the most keys first would be best for that, but then all
// sequences' keys are read at the same time, and those of long prompts do not fit into the cache:
// they come from memory again for each tile of queries. Therefore sequences are taken in groups
// whose keys fit, most keys first in one group, last in the next, so that long tiles meet long ones
// and short ones short ones where groups meet.
#pragma once

#include <cstdint>
#include <vector>

namespace mmcore::ops {

/// kPrefillTileRows query rows of a sequence.
struct PrefillTile {
  int64_t keys;  // that it reads
  int32_t sequence;
  int32_t row;

  bool operator==(const PrefillTile&) const = default;
};

/// What a group's keys and values may take: half of an H100's L2 cache.
inline constexpr int64_t kPrefillGroupBytes = int64_t{24} << 20;

/// Sorts `tiles`; `key_bytes` is what a key and its value take in all heads.
void order_prefill_tiles(std::vector<PrefillTile>& tiles, int64_t key_bytes);

}  // namespace mmcore::ops
