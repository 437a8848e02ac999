#include "matrix/wgmma.cuh"

// After it: it needs what comes with the common shapes.
#include <cute/arch/mma_sm90_gmma_ext.hpp>

namespace mmcore::cuda {

MMCORE_WGMMA_OP(144)

Status run_wgmma_144(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return launch_wgmma_tile<kTile144>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
