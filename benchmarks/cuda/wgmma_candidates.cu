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
const std::array<Tile, 8> kCandidates = {
    candidate<cuda::WgmmaTile{128, 144, 2, 1, false}>("128x144/2x1"),
    candidate<cuda::WgmmaTile{128, 144, 2, 1, true}>("128x144/2x1t"),
    candidate<cuda::WgmmaTile{128, 192, 2, 1, true}>("128x192/2x1t"),
    candidate<cuda::WgmmaTile{128, 160, 2, 1, true}>("128x160/2x1t"),
    candidate<cuda::WgmmaTile{256, 144, 2, 1, false}>("256x144/2x1"),
    candidate<cuda::WgmmaTile{256, 144, 1, 2, false}>("256x144/1x2"),
    candidate<cuda::WgmmaTile{256, 128, 1, 2, false}>("256x128/1x2"),
    candidate<cuda::WgmmaTile{256, 192, 1, 2, false}>("256x192/1x2"),
};

}  // namespace mmcore::bench
