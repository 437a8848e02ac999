#include "wgmma_candidates.h"

#include "matrix/wgmma.cuh"

namespace mmcore::bench {
namespace {

template <cuda::WgmmaTile kTile>
constexpr Tile candidate(const char* name) {
  return {name, kTile, cuda::launch_wgmma<cuda::WgmmaConfig<__nv_bfloat16, kTile>>};
}

}  // namespace

// features x tokens, cluster; t: in turns
const std::array<Tile, 2> kCandidates = {
    candidate<cuda::WgmmaTile{256, 160, 1, 2, false}>("256x160/1x2"),
    candidate<cuda::WgmmaTile{256, 128, 1, 2, false}>("256x128/1x2"),
};

}  // namespace mmcore::bench
