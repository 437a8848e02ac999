#include "ops/attention/prefill_order.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <tuple>

namespace mmcore::ops {
namespace {

struct Group {
  size_t begin, end;  // of the tiles
  int64_t most;       // keys of its longest tile
};

bool longer(const PrefillTile& a, const PrefillTile& b) {
  return std::tie(b.keys, a.sequence, a.row) < std::tie(a.keys, b.sequence, b.row);
}

/// Tiles come by sequence, the longest sequence first.
std::vector<Group> make_groups(const std::vector<PrefillTile>& tiles,
                               const std::map<int32_t, int64_t>& longest, int64_t key_bytes) {
  std::vector<Group> groups;
  int64_t bytes = 0;
  for (size_t i = 0; i < tiles.size();) {
    const int32_t sequence = tiles[i].sequence;
    const int64_t keys = longest.at(sequence);
    size_t end = i;
    while (end < tiles.size() && tiles[end].sequence == sequence) ++end;
    bytes += keys * key_bytes;
    if (groups.empty() || bytes > kPrefillGroupBytes) {
      groups.push_back({i, end, keys});
      bytes = keys * key_bytes;
    }
    groups.back().end = end;
    i = end;
  }
  return groups;
}

/// What it costs that long tiles meet long ones of another length: those of group i and i + 1, for
/// each second i from `first` on, and of the last group where the list ends with it.
int64_t cost(const std::vector<Group>& groups, size_t first) {
  int64_t sum = 0;
  for (size_t i = first; i < groups.size(); i += 2) {
    const int64_t next = i + 1 < groups.size() ? groups[i + 1].most : 0;
    sum += std::abs(groups[i].most - next);
  }
  return sum;
}

}  // namespace

void order_prefill_tiles(std::vector<PrefillTile>& tiles, int64_t key_bytes) {
  std::map<int32_t, int64_t> longest;
  for (const PrefillTile& tile : tiles) {
    int64_t& keys = longest[tile.sequence];
    keys = std::max(keys, tile.keys);
  }
  std::sort(tiles.begin(), tiles.end(), [&](const PrefillTile& a, const PrefillTile& b) {
    return std::tuple(-longest.at(a.sequence), a.sequence, a.row) <
           std::tuple(-longest.at(b.sequence), b.sequence, b.row);
  });
  const std::vector<Group> groups = make_groups(tiles, longest, key_bytes);
  // Rising groups are the first and each second after it, or the others.
  const size_t rising = cost(groups, 0) < cost(groups, 1) ? 0 : 1;
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto begin = tiles.begin() + static_cast<std::ptrdiff_t>(groups[i].begin),
               end = tiles.begin() + static_cast<std::ptrdiff_t>(groups[i].end);
    std::sort(begin, end, longer);
    if (i % 2 == rising) std::reverse(begin, end);
  }
}

}  // namespace mmcore::ops
